# Two commands for a fresh machine that has Python and make: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test test-slow test-ssh test-arm64 test-jetson lint build clean

demo: $(STAMP)
	$(BIN)/mggc-edge demo

test: $(STAMP) lint
	$(BIN)/python -m pytest -q

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m "not boards"

# Starts a server of ssh on a port of its own, and stops it; they are part of `make test` too.
test-ssh: $(STAMP)
	$(BIN)/python -m pytest -q -m ssh tests/benchmarks/devices

# Exported files on an emulated arm64 processor, and the oldest Python that a board may have: what comes out, no timing.
# It fetches 80 MB, once, and needs apt-get and Debian's keys, but no root.
test-arm64: $(STAMP)
	$(BIN)/python tests/boards/fetch.py .cache/boards
	$(BIN)/python -m pytest -q -m boards tests

# On a Jetson: what is tested on boards made of files, on this board too. pytest and numpy are enough; clocks need root.
test-jetson:
	$(PYTHON) -m pytest -q -rs tests/benchmarks/agent/test_any_board.py

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
