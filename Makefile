# `make demo` and `make test` need only Python 3.11 or later, make and bash; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin/
RESULT ?= results/demo.json

.PHONY: demo test format format-check lint type clean help

help:            ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

demo: $(READY)   ## The whole job on two CPU cores; writes results/demo.json and prints where the report is
	$(RUN)lotj demo --result $(RESULT)
	@echo "Result: $(RESULT)"

test: $(READY)   ## All tests
	OMP_NUM_THREADS=1 $(RUN)python -m pytest -n 2 --durations=10

format: $(READY) ## Format all code
	$(RUN)ruff format .
	$(RUN)ruff check --fix-only .

format-check: $(READY) ## Is all code formatted?
	$(RUN)ruff format --check .

lint: $(READY)   ## Lint all code
	$(RUN)ruff check .

type: $(READY)   ## Check types
	$(RUN)mypy

clean:           ## Remove the environment and caches; runs/ and results/ stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist src/*.egg-info

# The stamp makes repeated calls quick; a change of pyproject.toml installs anew.
$(READY): pyproject.toml scripts/check_graphics.sh
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lotj needs Python 3.11 or later, $(PYTHON) is $$($(PYTHON) --version). Name another: make PYTHON=python3.12"; exit 1; }
	@echo "Installing into $(VENV): some 7 GB with PyTorch's CUDA libraries, a few minutes"
	@free=$$(df -Pk . | awk 'NR == 2 { print int($$4 / 1048576) }'); test "$$free" -ge 8 || \
		echo "Warning: $$free GB are free on this disk; if the installation ends with 'No space left on device', make room"
	@$(PYTHON) -m venv $(VENV)
	$(RUN)python -m pip install --quiet --editable '.[dev]'
	@bash scripts/check_graphics.sh $(RUN)python
	@touch $@
