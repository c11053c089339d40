# Everything needs only python3 with venv and pip.  `make help` lists the targets.
PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
EXTRAS  ?= dev,deepspeed,tensorboard,fast,lora,quantization,evaluation,video,sweep
WORKERS ?= logical
ARGS    ?=

# Tests and checks never reach for the network, and share the cores by processes rather than by threads.
# The GPU tests (`make gpu`) leave ACCELERATE_USE_CPU out.
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 WANDB_MODE=offline TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
TEST    := $(OFFLINE) ACCELERATE_USE_CPU=true
PYTEST  := $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format format-check lint types layers check-configs smoke golden slow slurm faults gpu docs wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv and install vlmtrain with its development tools (once)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "vlmtrain needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make setup PYTHON=python3.11")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: setup ## train BLIP-2 on the embedded data and show what it learned
	$(BIN)/vlmtrain +experiment=blip2_opt $(ARGS)

test: setup ## run the fast tests
	$(TEST) $(PYTEST) $(ARGS)

check: format-check lint types layers test ## what to run before a commit

format: setup ## rewrite the code in house style
	$(BIN)/ruff check --quiet --select I --fix .
	$(BIN)/ruff format .

format-check: setup
	$(BIN)/ruff format --check .

lint: setup ## ruff
	$(BIN)/ruff check .

types: setup ## mypy
	$(BIN)/mypy

layers: setup ## who may import whom
	$(BIN)/lint-imports

check-configs: setup ## compose and check every shipped experiment
	$(TEST) $(PYTEST) tests/config $(ARGS)

smoke: setup ## train every experiment for two steps
	$(TEST) $(PYTEST) tests/test_every_experiment.py -m "slow or not slow" $(ARGS)

golden: setup ## the losses of tiny runs, to five digits
	$(TEST) $(BIN)/python -m pytest tests/test_golden_losses.py -m "slow or not slow" $(ARGS)

slow: setup ## the slow tests too: kills, several processes, wheels
	$(TEST) $(PYTEST) -m "not gpu and not multi_gpu and not network" $(ARGS)

slurm: setup ## train through time limits and sweep under a SLURM of two nodes, here; installs it (root, Debian or Ubuntu)
	PYTHON=$(BIN)/python scripts/slurm_check.sh

faults: setup ## kill, stop and spoil small runs on purpose, the cheap rows
	$(TEST) $(BIN)/vlmtrain faults --tier smoke $(ARGS)

gpu: setup ## the tests that need a GPU
	$(OFFLINE) $(BIN)/python -m pytest -m gpu $(ARGS)

docs: setup ## write the table of keys in docs/configuration.md from the schema
	$(BIN)/python scripts/document_keys.py

wheel: setup ## build dist/vlmtrain-*.whl, with conf/ inside
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean: ## remove the environment, caches and build output; runs/ and data stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
