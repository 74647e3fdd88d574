# Two commands do everything: `make run` and `make test`. Each sets up what it needs in .venv; nothing is global.
#
#   make run               notebooks on the simulated sample, then the site
#   make run DATA=folder   the same on real recordings
#   make test              lint, types, every test
#   make lab               JupyterLab on the notebooks
#
#   PROFILE=full           longer training, as in notebooks/profiles.yaml
#   PYTHON=python3.12      the Python that .venv is made with (3.11 or newer)
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu   on Linux without a GPU: the small build of torch

PYTHON ?= python3
PROFILE ?= quick
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
RUN := $(BIN)/python -m smellkit
FOLDER := $(if $(DATA),--data "$(abspath $(DATA))")

.PHONY: run test lab clean

run: $(VENV)/run.stamp
	$(RUN) run --profile $(PROFILE) $(FOLDER)
	$(RUN) site --profile $(PROFILE) $(FOLDER) $(if $(STRICT),--strict)

test: export OMP_NUM_THREADS = 1
test: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n logical --dist loadgroup

lab: $(VENV)/lab.stamp
	$(BIN)/jupyter lab notebooks

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Quarto comes from its pip package where its download can be reached, and is done without where it can't.
$(VENV)/run.stamp: pyproject.toml | $(BIN)/python
	$(INSTALL) -e '.[site,sweep,senses]'
	$(PIP) install --quiet quarto-cli >$(VENV)/quarto.log 2>&1 || echo "Quarto can't be installed here; the site will be a preview."
	touch $@

$(VENV)/test.stamp: pyproject.toml | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	touch $@

$(VENV)/lab.stamp: pyproject.toml | $(BIN)/python
	$(INSTALL) -e '.[site,sweep,senses,lab]'
	touch $@

clean:
	rm -rf _site data/work data/runs
