# Two commands do everything: `make run` and `make test`. Each sets up what it needs in .venv; nothing is global.
#
#   make run               notebooks on the simulated sample, then the site
#   make run DATA=folder   the same on real recordings
#   make test              lint, types, every test
#   make lessons           every notebook twice, to the last digit, and once with another parameter
#   make lab               JupyterLab on the notebooks
#
#   PROFILE=full           longer training, as in notebooks/profiles.yaml
#   PYTHON=python3.12      the Python that .venv is made with (3.11 or newer)
#   TORCH=cuda             on Linux the big build of torch, for Nvidia GPUs; without it the small one
#   LOCKED=1               for `make test`: the versions in requirements.lock, by their hashes

PYTHON ?= python3
PROFILE ?= quick
TORCH ?= cpu
comma := ,
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m smellkit
FOLDER := $(if $(DATA),--data "$(abspath $(DATA))")
UV := $(shell command -v uv)
# 21,000 files are compiled side by side (pip: one by one), once: whoever forbids Python to keep that compiles in each process.
unexport PYTHONDONTWRITEBYTECODE
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
GET := $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check)

# The small build is not on PyPI: its index is asked where it can be reached; a mirror may have it in its own place.
SMALL := https://download.pytorch.org/whl/cpu
ASK := import urllib.request; urllib.request.urlopen("$(SMALL)/torch/", timeout=5)
INDEX = $(shell [ $(TORCH)-$$(uname -s) = cpu-Linux ] && $(PYTHON) -c '$(ASK)' 2>/dev/null && \
	echo $(if $(UV),--torch-backend cpu,--extra-index-url $(SMALL)))

TORCH_SIZE = $(if $(INDEX),: 190 MB to fetch, (190 MB to fetch; 2 to 3 GB where a PyPI for Linux gives the build for GPUs))

define install
	@echo "Into $(VENV) goes what is not there yet: about $(2), torch among it$(TORCH_SIZE)."
	$(GET) $(INDEX) -e '.[$(1)]'
endef

.PHONY: run test lessons lab clean

run: $(VENV)/run.stamp
	$(RUN) run --profile $(PROFILE) $(FOLDER)
	$(RUN) site --profile $(PROFILE) $(FOLDER) $(if $(STRICT),--strict)

test: export OMP_NUM_THREADS = 1
test: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --no-loadscope-reorder

lessons: export OMP_NUM_THREADS = 1
lessons: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n logical --dist worksteal -m lessons tests/test_executed.py

lab: $(VENV)/lab.stamp
	$(BIN)/jupyter lab notebooks

$(BIN)/python:
	$(if $(UV),$(UV) venv --quiet --python $(PYTHON),$(PYTHON) -m venv) $(VENV)

# Quarto comes from its pip package where its download can be reached, and is done without where it can't.
$(VENV)/run.stamp: pyproject.toml | $(BIN)/python
	$(call install,site$(comma)sweep$(comma)senses,1.6 GB)
	$(GET) quarto-cli >$(VENV)/quarto.log 2>&1 || echo "Quarto can't be installed here; the site will be a preview."
	$(COMPILE)
	touch $@

$(VENV)/test.stamp: pyproject.toml requirements.lock | $(BIN)/python
ifdef LOCKED
	$(GET) $(INDEX) torch==2.13.0
	$(GET) --no-deps --require-hashes -r requirements.lock
	$(GET) --no-deps -e .
else
	$(call install,dev,2.6 GB)
endif
	$(COMPILE)
	touch $@

$(VENV)/lab.stamp: pyproject.toml | $(BIN)/python
	$(call install,site$(comma)sweep$(comma)senses$(comma)lab,1.7 GB)
	$(COMPILE)
	touch $@

clean:
	rm -rf _site data/work data/runs
