# Every door of the repository. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Rewritten when the lock or the package's own metadata changes; otherwise `make setup` has nothing to do.
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo up test fuzz lint types contracts migrations bench faults ci format lock

help:  ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## Install everything into .venv (needs Python 3.11 to 3.13, no root)
	@:

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "Python 3.11 to 3.13 is needed; name one with 'make PYTHON=python3.12 setup'." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "Python's venv module is missing (Debian: python3-venv)." >&2; exit 1; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "Installing about 6 GB of locked packages into $(VENV) ..."
	@$(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python --editable .
	@touch $@

demo: setup  ## Train on drawn samples, inspect 40 unseen images, print what was found (5 minutes on 2 cores, 7 on slow ones)
	@$(BIN)/defectoscope demo

up: setup  ## Run everything on this machine until Ctrl-C
	@$(BIN)/defectoscope up

test: setup  ## Run every test
	@$(BIN)/pytest --numprocesses 2 --dist loadfile

fuzz: setup  ## Feed 100 000 damaged and hostile inputs to everything that reads any (five minutes on 2 cores)
	@$(BIN)/python -m tests.fuzz

lint: setup  ## Check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .

types: setup  ## Check types, strictly
	@$(BIN)/mypy

contracts: setup  ## Check who may import whom
	@$(BIN)/lint-imports --no-logo

migrations: setup  ## Upgrade, compare, downgrade and upgrade an empty database
	@$(BIN)/pytest --quiet tests/integration/database/test_migrations.py

bench: setup  ## Measure everything, as ratios within one run (an hour on 2 cores, two without VNNI)
	@mkdir -p benchmark-results
	@$(BIN)/python -m benchmarks --out benchmark-results/worker.json
	@$(BIN)/python -m benchmarks.compare --out benchmark-results/peers.json
	@$(BIN)/python -m benchmarks.memory --out benchmark-results/memory.json
	@$(BIN)/python -m benchmarks.latency --out benchmark-results/latency.json
	@$(BIN)/python -m benchmarks.scaling --out benchmark-results/scaling.json
	@$(BIN)/python -m benchmarks.enumeration --out benchmark-results/enumeration.json
	@$(BIN)/python -m benchmarks.million --out benchmark-results/million.json
	@$(BIN)/python -m benchmarks.variants --out benchmark-results/variants.json
	@$(BIN)/python -m benchmarks.training --out benchmark-results/training.json

faults: setup  ## Kill, cut and flush everything under load, five seeds, and count what is lost (about 25 minutes)
	@$(BIN)/python -m tests.faults --out faults.json

ci: lint types contracts migrations test  ## Everything that must pass before a commit lands

format: setup  ## Format the code and apply safe fixes
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

lock: setup  ## Resolve requirements.lock again from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --all-extras \
		pyproject.toml --output-file requirements.lock
