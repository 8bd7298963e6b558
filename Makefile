# Everything a user needs is one of these; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONFIG ?= configs/cell_flip.py
ARGS ?=

# Tests that compile few programs and start few processes.
LONG := api auditing density docs eager export igtt jax_settings losses lowering \
  prediction training unsupervised wheel
QUICK := $(filter-out $(LONG:%=tests/test_%.py) tests/data/test_synthetic.py, \
  $(wildcard tests/data/test_*.py tests/morphology/test_*.py tests/test_*.py)) \
  tests/launch tests/noise/test_golden.py

.PHONY: help setup run test quick lint format docs lock clean

help:            ## list the targets
	@grep -hE '^[a-z]+: .*##|^[a-z]+:  *##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(STAMP)  ## create .venv with the pinned dependencies

# Repeated only when the lock file (or what is packaged) changed.
$(STAMP): requirements.lock setup.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
	  "metaseg needs Python >= 3.11; this is " + sys.version.split()[0] + \
	  ". Say which to use: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

run: $(STAMP)    ## train on CONFIG (configs/cell_flip.py) and print where the report is
	$(BIN)/python experiments/main.py --config=$(CONFIG) $(ARGS)

test: $(STAMP) lint  ## lint, then run all tests
	$(BIN)/python -m pytest $(ARGS)

quick: $(STAMP) lint  ## lint, then the tests that need little time, and ARGS
	$(BIN)/python -m pytest -m "not slow" $(QUICK) $(ARGS)

lint: $(STAMP)   ## ruff check, ruff format --check, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff fix and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)   ## write docs/noise.md and the pictures of the docs
	$(BIN)/python docs/noise_pages.py
	$(BIN)/python docs/families_picture.py

# Needs uv (pip install uv). The file has a line with markers for each Python that gets
# versions of its own: each gets the newest that support it.
lock:            ## pin the dependencies of setup.py
	uv pip compile setup.py --extra test --universal --python-version 3.11 \
	  --fork-strategy requires-python --upgrade --no-emit-index-url --no-annotate \
	  --custom-compile-command 'make lock' --output-file requirements.lock

clean:           ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
