PYTHON ?= python3
LOWEST ?=
WORKERS ?= $(foreach name,alice bob charlie testing,$(name)=localhost,127.0.0.1,::1)
ARGS ?=

# The virtual environment is made by the first target that needs it, and again when its lists of packages change.
# Each choice of PYTHON and LOWEST has its own, so that none overwrites another's: .venv, .venv-python3.13,
# .venv-python3.10-lowest.
ENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))$(if $(LOWEST),-lowest)
BIN := $(ENV)/bin
STAMP := $(ENV)/.installed
FLOWER_STAMP := $(ENV)/.flower-installed
# JupyterLab asks root for this, in containers most often.
ROOT_FLAG := $(if $(filter 0,$(shell id -u)),--allow-root)

.DEFAULT_GOAL := help
.PHONY: help install demo notebook dataloader certificates install-flower python-for-flower simulate deployment test test-fast test-all test-engine coverage fuzz check bench

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "PYTHON=python3.13 uses another Python than python3; LOWEST=1 the lowest versions that requirements.txt allows."

install: $(STAMP) ## make .venv and install all packages (first time: minutes, some GB)

demo: $(STAMP) ## start the four workers and train with them
	$(BIN)/python start_websocket_servers.py -- $(BIN)/python run_websocket_client.py

notebook: $(STAMP) ## start the four workers and open the tutorial in JupyterLab
	$(BIN)/python start_websocket_servers.py -- $(BIN)/python -m jupyterlab $(ROOT_FLAG) federated_training.ipynb

dataloader: $(STAMP) ## the same with the tutorial on remote tensors, which the workers then allow
	$(BIN)/python start_websocket_servers.py --remote_operations -- $(BIN)/python -m jupyterlab $(ROOT_FLAG) federated_dataloader.ipynb

# First of all: a Python that is too old should be told before GBs are downloaded.
python-for-flower:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is Python %d.%d; Flower needs 3.11 or later. Name another: make simulate PYTHON=python3.12" % sys.version_info[:2])'

install-flower: python-for-flower $(FLOWER_STAMP) ## add Flower with Ray (0.2 GB) to .venv, which the next two do by themselves

simulate: python-for-flower $(FLOWER_STAMP) ## train with 100 clients on Flower's simulation engine: make simulate ARGS="--clients 1000"
	@$(BIN)/python flower/simulate.py $(ARGS)

deployment: python-for-flower $(FLOWER_STAMP) ## train on Flower's deployment engine: a SuperLink and three SuperNodes, with TLS
	@$(BIN)/python flower/deployment.py $(ARGS)

certificates: $(STAMP) ## make TLS certificates for tests: make certificates WORKERS="alice=192.0.2.11 bob=192.0.2.12"
	@$(BIN)/python -m tutorial.certificates $(WORKERS)

bench: $(STAMP) ## measure the speed, against the same work without this package (minutes)
	$(BIN)/python -m benchmarks

# Style and types are checked with the newest versions alone: older ones describe their types less well.
test: $(if $(LOWEST),,check) $(STAMP) ## check style and types, then run all tests
	@echo "== pytest"
	@$(BIN)/python -m pytest

test-fast: $(STAMP) ## run the tests that start no process of their own
	@$(BIN)/python -m pytest --ignore tests/e2e

# A test that hangs ends the run, and the stack of each thread is shown.
coverage: $(STAMP) ## as test-fast, and show which lines and branches of syft/ no test reaches
	@$(BIN)/python -m pytest --ignore tests/e2e --cov -o faulthandler_timeout=300 -o faulthandler_exit_on_timeout=true

test-all: $(if $(LOWEST),,check) $(STAMP) ## as `make test`, with all of torchvision's families of models, and the longest notebook
	@ALL_TESTS=1 $(BIN)/python -m pytest

test-engine: python-for-flower $(FLOWER_STAMP) ## test the Flower app on Flower's own engines (minutes)
	@$(BIN)/python -m pytest tests/engine

fuzz: $(STAMP) ## run 50,000 structures, replies, requests and operations that nobody wrote (minutes)
	@FUZZ_CASES=50000 FUZZ_REQUESTS=50000 $(BIN)/python -m pytest tests/e2e/test_fuzz.py tests/test_remote_fuzz.py

check: $(STAMP) ## check style and types
	@echo "== ruff check"
	@$(BIN)/ruff check .
	@echo "== ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "== mypy"
	@$(BIN)/mypy

$(STAMP): requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "$(PYTHON) is Python %d.%d; the project needs 3.10 or later. Name another: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "Installing into $(ENV). The first time this downloads some GB and takes minutes."
	@$(PYTHON) -m venv $(ENV)
	@sed '$(if $(LOWEST),s/>=/==/)' requirements.txt > $(ENV)/requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(ENV)/requirements.txt -r requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
	@echo "Installed."

$(FLOWER_STAMP): requirements-flower.txt $(STAMP)
	@echo "Installing Flower with Ray (0.2 GB) into $(ENV)."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-flower.txt
	@touch $@
	@echo "Installed."
