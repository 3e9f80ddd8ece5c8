.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --constraint constraints.txt

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: .venv/installed  ## .venv with the package, at the pinned versions

.venv/installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is wanted; say where it is: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

.venv/tools: .venv/installed
	$(PIP) --editable '.[test]'
	@touch $@

run: install  ## the main job on the built-in synthetic shop
	$(BIN)/python train.py

test: lint  ## lint, types and the tests that take seconds each
	$(BIN)/pytest -n 2 --dist loadfile -m 'not slow'

test-slow: .venv/tools  ## the tests that take minutes: notebooks, servers, browsers, every command of README.md
	$(BIN)/pytest -n 2 --dist loadfile -m slow

lint: .venv/tools  ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

notebooks: .venv/tools  ## notebooks/*.ipynb of the scripts there, to open in Jupyter
	$(BIN)/jupytext --to ipynb notebooks/*.py

ui: install  ## the MLflow UI on the default store
	$(BIN)/python -m recsys.tracking

clean:  ## remove the environment, outputs and caches
	rm -rf .venv outputs .cache .pytest_cache .mypy_cache .ruff_cache

.PHONY: help install run test test-slow lint notebooks ui clean
