# make demo: a labelled video; make test: the tests; make test-all: the slow ones too; make check: what CI runs.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
BUILD_REQUIRES = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])

SANITIZED = LD_PRELOAD="$(foreach lib,asan ubsan stdc++,$(shell $(CXX) -print-file-name=lib$(lib).so))" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	PYTHONPATH=$(CURDIR)/build/sanitize:$$(echo $(CURDIR)/.venv/lib/python3.*/site-packages) $(BIN)/python -S

# With a compiler, a kernel that does not build is an error; without, lmanet is installed without its kernel.
export LMANET_REQUIRE_NATIVE ?= $(if $(shell command -v $(CXX)),1,0)

.PHONY: demo test test-all check sanitize format clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(BIN)/lmanet demo --out demo

test: $(STAMP)
	$(BIN)/python -m pytest

test-all: $(STAMP)
	$(BIN)/python -m pytest -m "slow or not slow"

check: $(STAMP)
	$(BIN)/ruff check src tests tools
	$(BIN)/ruff format --check src tests tools
	$(BIN)/pyright
	$(MAKE) test

format: $(STAMP)
	$(BIN)/ruff check --fix src tests tools
	$(BIN)/ruff format src tests tools

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
