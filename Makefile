# Each target sets up what it needs on a fresh machine; `make demo` and `make test` are the two to know.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-long lint bench lock clean

demo: $(READY)
	$(BIN)/flairhub demo

test: $(READY)
	$(BIN)/python -m pytest

test-long: $(READY)
	$(BIN)/python -m pytest -m long

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m benchmarks

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# Refreshes the pinned versions; needs uv (pip install uv).
lock:
	uv pip compile pyproject.toml constraints.in --all-extras --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-package flairhub \
	  -o requirements.lock

clean:
	rm -rf .venv demo bench.json .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist
