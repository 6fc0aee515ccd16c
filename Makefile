.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

setup: $(STAMP)  ## make .venv with every extra and the development tools

# `pip install --group` needs pip 25.1; the venv's own pip is brought there first.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable '.[all]'
	@touch $@

demo: setup  ## the main job on built-in data: train, prune, prove, measure, report
	$(BIN)/edgeslim compress recipes/vessels-unet.yaml --out runs/demo

check: setup  ## format, lint, types, import rules, unit tests: under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -q tests/unit

test: setup  ## the whole test suite
	$(BIN)/pytest

format: setup  ## rewrite the sources in the project's style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## measure what the project promises about its own speed
	$(BIN)/python -m tests.benchmarks

clean:  ## remove the environment and all run output
	rm -rf $(VENV) runs dist build

.PHONY: help setup demo check test format bench clean
