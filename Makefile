# make setup | q_learning | dqn | ... | sac | test | lint | docs | docs-serve; each target runs `make setup` first
# if needed.
# Options of a script go into ARGS: make dqn ARGS="--seed 3 --env-id Acrobot-v1"
# Another Python version: make PYTHON=python3.13 setup

PYTHON ?= python3
VENV ?= .venv
PIP := $(VENV)/bin/pip --disable-pip-version-check --quiet
SCRIPTS := $(foreach folder,$(wildcard */),$(if $(wildcard $(folder)$(folder:/=).py),$(folder:/=)))

.PHONY: setup test lint docs docs-serve clean $(SCRIPTS)

setup: $(VENV)/installed

$(VENV)/installed: requirements.txt pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) install -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements-dev.txt requirements-extras.txt $(wildcard benchmarks/requirements*.txt) $(VENV)/installed
	$(PIP) install -r requirements-dev.txt
	touch $@

$(VENV)/installed-docs: requirements-docs.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) install -r requirements-docs.txt
	touch $@

$(SCRIPTS): $(VENV)/installed
	$(VENV)/bin/python $@/$@.py $(ARGS)

test: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest $(ARGS)

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

docs: $(VENV)/installed-docs  # the site, in build/docs/html; needs no TensorFlow
	rm -rf build/docs && mkdir -p build/docs/pages
	$(VENV)/bin/python -m sphinx -W --keep-going --quiet -c docs build/docs/pages build/docs/html

docs-serve: docs
	$(VENV)/bin/python -m http.server --directory build/docs/html --bind 127.0.0.1 8000

clean:
	rm -rf $(VENV) build *.egg-info
