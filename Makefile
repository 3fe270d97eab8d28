# make demo: a labelled video; make test: the tests; make check: what CI runs.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
BUILD_REQUIRES = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])

.PHONY: demo test check format clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(BIN)/lmanet demo --out demo

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff check src tests tools
	$(BIN)/ruff format --check src tests tools
	$(BIN)/pyright
	$(MAKE) test

format: $(STAMP)
	$(BIN)/ruff check --fix src tests tools
	$(BIN)/ruff format src tests tools

# Set up once, and again when the dependencies or the kernel change. Built in .venv itself, so that a second build
# compiles only what changed. Where there is a compiler, a kernel that does not compile is an error.
$(STAMP): pyproject.toml CMakeLists.txt $(wildcard src/lmanet/ops/csrc/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lmanet needs Python 3.11 or newer: make PYTHON=python3.12 …" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) cmake ninja $$($(BIN)/python -c '$(BUILD_REQUIRES)')
	$(if $(shell command -v $${CXX:-c++}),LMANET_REQUIRE_NATIVE=1) $(PIP) --no-build-isolation -e ".[dev]"
	touch $@

clean:
	rm -rf .venv build dist demo
