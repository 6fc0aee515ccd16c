# `make demo` and `make test` are all a newcomer needs. Everything runs in .venv, which `make setup` keeps up to date.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PENDING := $(VENV)/.installing
ZOO ?= runs/zoo.json
DATA ?= ../shared/data

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 17

setup: $(STAMP)  ## make .venv with every extra and the development tools; nothing to do when it is up to date

# The stamp is as new as the files that say what is installed. An installation that was killed leaves PENDING behind:
# what it half wrote cannot be trusted, so the environment is made anew (pip's cache makes that quick). One that failed
# in an orderly way (no network, say) is continued. `pip install --group` needs pip 25.1.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "edgeslim needs Python 3.10 to 3.13 and $(PYTHON) is another: make setup PYTHON=python3.12" >&2; exit 1; }
	@if [ -e $(PENDING) ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "making $(VENV)"; rm -rf $(VENV); \
	  $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }; \
	fi
	@touch $(PENDING)
	@echo "installing into $(VENV), which takes a while the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    --group dev --editable '.[all,rtx]' && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps \
	    --upgrade --target $(VENV)/zoo --group zoo || { rm -f $(PENDING); exit 1; }
	@mv $(PENDING) $@ && touch $@

demo: setup  ## the main job on built-in data: train, prune, prove, measure, report
	$(BIN)/edgeslim compress recipes/vessels-unet.yaml --out runs/demo

check: setup  ## format, lint, types, import rules, unit tests: under a minute
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target format-check lint types imports unit

format-check: setup  ## is everything formatted?
	$(BIN)/ruff format --check .

lint: setup  ## ruff, and hadolint on the Dockerfiles
	$(BIN)/ruff check .
	$(BIN)/hadolint --config docker/hadolint.yaml docker/Dockerfile.*

types: setup  ## mypy --strict
	$(BIN)/mypy

imports: setup  ## the import rules between the folders
	$(BIN)/lint-imports --no-cache

unit: setup  ## the unit tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -q --numprocesses=$(or $(WORKERS),2) --dist=loadfile -m "not slow" tests/unit

# A file stays in one process, for its tests share what takes long to make. Two processes of one thread each are faster
# on two cores than one process that splits every small product among them.
test: setup  ## the whole test suite, in WORKERS processes (2)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=$(or $(WORKERS),2) --dist=loadfile

test-engine: setup  ## engines: the real builder on real nets and all patterns, and what every TensorRT version offers
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=$(or $(WORKERS),2) --dist=loadgroup -q tests/engine
.PHONY: test-engine

test-gpu: setup  ## what needs an NVIDIA GPU: memory, CUDA graphs, engines that run, NVML; skipped where there is none
	$(BIN)/pytest -q tests/gpu
.PHONY: test-gpu

test-device: setup  ## remote builds, over a real sshd on this machine
	$(BIN)/pytest -q tests/device
.PHONY: test-device

fuzz: setup  ## prune FUZZ random nets (2000) and compare: new ones every time, at a rate of some 15 a second
	EDGESLIM_FUZZ=$(or $(FUZZ),2000) $(BIN)/pytest -q tests/fuzz

format: setup  ## rewrite the sources in the project's style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## measure what the project promises about its own speed
	$(BIN)/python -m tests.benchmarks

zoo: setup  ## half of the channels of every torchvision CNN: is what is left exact? (long)
	$(BIN)/python -m tests.zoo --out $(ZOO)

reproduce: setup  ## the published results on real data, in DATA (../shared/data): many hours on two cores
	$(BIN)/python -m tests.reproduce --data $(DATA)

reproduce-quick: setup  ## every method on real data with small budgets: ten minutes
	$(BIN)/python -m tests.reproduce --data $(DATA) --quick

bench-compiler: setup  ## how analysis and removal grow with the net
	$(BIN)/python -m tests.benchmarks.compiler_growth

bench-latency: setup  ## how well latencies are predicted and targets met on this machine: ten quiet minutes
	$(BIN)/python -m tests.benchmarks.latency_targets

hooks: setup  ## run `make check` before every commit
	$(BIN)/pre-commit install

clean:  ## remove the environment and all run output
	rm -rf $(VENV) runs dist build

.PHONY: help setup demo check format-check lint types imports unit test fuzz zoo reproduce reproduce-quick format bench bench-compiler bench-latency hooks clean
