# make setup | q_learning | dqn | ... | td3 | test | lint, each after `make setup`, which costs nothing the second time.
# Options of a script go into ARGS: make dqn ARGS="--seed 3 --env-id Acrobot-v1"; another Python: make PYTHON=python3.13 setup

PYTHON ?= python3
VENV ?= .venv
PIP := $(VENV)/bin/pip --disable-pip-version-check --quiet
SCRIPTS := $(foreach room,$(wildcard */),$(if $(wildcard $(room)$(room:/=).py),$(room:/=)))

.PHONY: setup test lint clean $(SCRIPTS)

setup: $(VENV)/installed

$(VENV)/installed: requirements.txt pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) install -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	$(PIP) install -r requirements-dev.txt
	touch $@

$(SCRIPTS): $(VENV)/installed
	$(VENV)/bin/python $@/$@.py $(ARGS)

test: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest $(ARGS)

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV) build *.egg-info
