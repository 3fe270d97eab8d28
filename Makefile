# make demo: a labelled video; make test: the tests; make test-all: the slow ones too; make check: what CI runs;
# make docs: the documentation.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
BUILD_REQUIRES = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])
DOCS := build/docs-venv
DOCS_REQUIRES = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])

SANITIZED = LD_PRELOAD="$(foreach lib,asan ubsan stdc++,$(shell $(CXX) -print-file-name=lib$(lib).so))" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	PYTHONPATH=$(CURDIR)/build/sanitize:$$(echo $(CURDIR)/.venv/lib/python3.*/site-packages) $(BIN)/python -S

# With a compiler, a kernel that does not build is an error; without, lmanet is installed without its kernel.
export LMANET_REQUIRE_NATIVE ?= $(if $(shell command -v $(CXX)),1,0)

.PHONY: demo test test-all check docs sanitize format clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(BIN)/lmanet demo --out demo

# Two processes of one thread each: small networks on two threads mostly wait for each other.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or not slow"

check: $(STAMP)
	$(BIN)/ruff check src tests tools examples
	$(BIN)/ruff format --check src tests tools examples
	$(BIN)/pyright
	$(MAKE) test

format: $(STAMP)
	$(BIN)/ruff check --fix src tests tools examples
	$(BIN)/ruff format src tests tools examples

# The documentation as a site, build/site/index.html, without a warning. The sources are read, not run: its tools, the
# extra `docs`, have an environment of their own without PyTorch.
docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --strict

$(DOCS)/.installed: pyproject.toml
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check \
		$$($(DOCS)/bin/python -c '$(DOCS_REQUIRES)')
	touch $@

# The kernel under AddressSanitizer and UBSan, with the attention tests. Needs GCC. The report is on the terminal, hence
# --capture=sys; -S leaves out the editable install of .venv.
sanitize: $(STAMP)
	rm -rf build/sanitize
	$(PIP) --no-build-isolation --no-deps --target build/sanitize --config-settings=build-dir=build/sanitize-cmake \
		--config-settings=cmake.define.LMANET_SANITIZE=ON --config-settings=cmake.build-type=RelWithDebInfo .
	$(SANITIZED) -c 'import torch, lmanet.ops._native as n; assert "build/sanitize/" in n.__file__, n.__file__'
	$(SANITIZED) -m pytest --capture=sys tests/ops

# Set up once, and again when the dependencies or the kernel change. Built in .venv itself, so that a second build
# compiles only what changed.
$(STAMP): pyproject.toml CMakeLists.txt $(wildcard src/lmanet/ops/csrc/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lmanet needs Python 3.11 or newer: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo "setting up .venv: PyTorch and the tools, about 6 GB"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) cmake ninja $$($(BIN)/python -c '$(BUILD_REQUIRES)')
	$(PIP) --no-build-isolation -e ".[dev]"
	touch $@

clean:
	rm -rf .venv build dist wheelhouse demo
