# make demo    a synthetic dataset through the whole road, in minutes
# make test    everything that is checked before a change lands
# Both make their own environment in .venv when there is none, or when what it is made from has changed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test lint docs format install clean

demo: $(INSTALLED)
	$(BIN)/selfcfg demo

test: lint
	$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/sphinx-build -E -W --keep-going -b html docs docs/_build/html

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "selfcfg needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(BIN)/python -c "" 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info
