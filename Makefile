# Everything runs in .venv, which `make setup` makes; every target needs it and makes it when it is missing.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TOO_OLD := error: Python 3.11 or newer is needed; name one: make setup PYTHON=python3.12

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo smoke test lint types tests

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## the environment, in .venv (a second call takes no time)

demo: $(READY)  ## the whole flow on this machine: data, training, sampling, report
	@$(BIN)/python tools/study.py configs/demo.yaml

smoke: $(READY)  ## the same flow, tiny, only to show that it runs
	@$(BIN)/python tools/study.py configs/smoke.yaml

test: lint types tests  ## lint, types and tests: what .ci/run calls

lint: $(READY)  ## ruff: lint and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)  ## pyright
	$(BIN)/pyright

# One thread for each of the two processes: small tensors are faster so, and results do not depend on the machine.
tests: $(READY)  ## pytest (the long ones too: .venv/bin/pytest -m slow)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

# torch first and alone, see constraints.txt. The stamp comes last: an interrupted set-up is begun again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo '$(TOO_OLD)' >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
