# Every target sets up what it needs on a fresh machine. To know first: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: demo test test-long lint bench lock clean

demo: $(READY)
	$(BIN)/flairhub demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The long suites, and every property test with thousands of random examples.
test-long: $(READY)
	$(BIN)/python -m pytest -n 2 -m "long or hypothesis" --hypothesis-profile long

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m benchmarks

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("flairhub needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "Setting up .venv from requirements.lock (some minutes, about 6 GB) ..."
	@$(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# Moves every pin to its newest version that pyproject.toml and constraints.in allow.
# One package alone: make lock UPGRADE="--upgrade-package zarr"; none: make lock UPGRADE=
UPGRADE ?= --upgrade
lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --constraints constraints.in --all-extras --universal \
	  --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url \
	  --no-emit-package flairhub --quiet $(UPGRADE) --output-file requirements.lock

clean:
	rm -rf .venv demo sample bench.json build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
