# Every target makes the environment itself where it is missing or older than pyproject.toml.
#   make PYTHON=python3.12 demo     another interpreter (3.11 or newer)
#   make VENV=/big/disk/env test    the environment (4.8 GB) elsewhere
#   make SEED=7 TIMES=50 torture    fewer faults than 1000 of each kind, and other ones
#   make JOBS=4 test                so many tests at a time, each about 1.5 GB of RAM

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
RUN := $(VENV)/bin/python -m
STAMP := $(VENV)/.autotrain-installed

# What cannot run here is left out: tests marked root without root, gpu without a GPU.
ROOT = $(shell [ "$$(id -u)" = 0 ] || echo "and not root")
GPU = $(shell nvidia-smi -L >/dev/null 2>&1 || echo "and not gpu")
HERE = not peers $(ROOT) $(GPU)

# What `make bench` runs besides: those that need nothing but autotrain. Minutes each.
BENCHMARKS = $(wildcard benchmarks/cpu_peaks.py benchmarks/cpu_cells.py)

.DEFAULT_GOAL := help
.PHONY: help demo test check bench torture clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## +/\t/' | expand -t 10

demo: $(STAMP)  ## plan and train the speech autoencoder on the clips that come with it
	@mkdir -p demo
	@$(RUN) autotrain plan --template speech-autoencoder -o demo/plan.toml
	@$(RUN) autotrain run demo/plan.toml --fresh

test: $(STAMP)  ## the tests, without the slow ones
	@$(RUN) pytest -n $(JOBS) --dist loadfile -m "not slow and not gpu and $(HERE)"
	@[ -n "$(GPU)" ] || $(RUN) pytest -m "gpu and not slow and $(HERE)"

check: $(STAMP)  ## format, lint, types, and who may import whom
	@$(RUN) ruff format --check --quiet .
	@$(RUN) ruff check --quiet .
	@$(RUN) mypy
	@$(RUN) pytest tests/test_import_rules.py

bench: $(STAMP)  ## predictions beside measurements: `autotrain bench`, then benchmarks/
	@$(RUN) autotrain bench memory
	@for script in $(BENCHMARKS); do printf '\n%s\n' $$script; "$(VENV)/bin/python" $$script || exit 1; done

torture: $(STAMP)  ## every test that can run here, each fault TIMES times from SEED on
	@TIMES=$${TIMES:-1000} $(RUN) pytest -m "$(HERE)"

clean:  ## remove what the other targets made, but not the environment or your runs
	@rm -rf demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find autotrain templates tests -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [ -d "$(VENV)" ]; then echo "kept $(VENV) (about 4.8 GB): rm -rf $(VENV) removes it"; fi

$(STAMP): pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "error: $(PYTHON) is not installed; autotrain needs Python 3.11 or newer" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "error: $(PYTHON) is Python %d.%d; autotrain needs 3.11 or newer: make PYTHON=python3.11 ..." \
	  % sys.version_info[:2])'
	@"$(VENV)/bin/python" -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv "$(VENV)"
	@echo "installing autotrain and what it needs into $(VENV) (4.8 GB, mostly torch)" >&2
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(RUN) pip install --quiet --editable '.[dev]'
	@touch $@
