# Two commands for a fresh machine that has Python and make: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test test-slow test-ssh lint build clean

demo: $(STAMP)
	$(BIN)/mggc-edge demo

test: $(STAMP) lint
	$(BIN)/python -m pytest -q

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m "slow or not slow"

# Starts a server of ssh on a port of its own, and stops it; they are part of `make test` too.
test-ssh: $(STAMP)
	$(BIN)/python -m pytest -q -m ssh tests/benchmarks/devices

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

build: $(STAMP)
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

# Torch comes first and alone: whatever asks for it afterwards finds it there.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
