# Everything a newcomer needs: `make run`, `make test`. Only Python 3.11 or newer and make must be there.
# Paths are relative throughout, so the checkout may lie anywhere, also below a folder with a space in its name.

HOST := 127.0.0.1
PORT := 8000
ROOT := ./angos-data
ARGS :=
ROWS :=
PYTHON ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PACKAGES := -p angos.sansio -p angos.runtime -p angos.simulator
SCRIPTS := tests benchmarks

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test check bench clean

help:
	@echo 'make run    serve on http://$(HOST):$(PORT), data in $(ROOT); PORT=, HOST=, ROOT=, ARGS="--workers 2" override'
	@echo 'make test   run all tests; ARGS="-k upload" selects, HYPOTHESIS_PROFILE=nightly searches longer'
	@echo 'make check  ruff and mypy --strict'
	@echo 'make bench  measure against docker-registry and nginx; ROWS=manifest,head selects'
	@echo 'make clean  remove what the other targets made, except the data'

run: $(VENV)/.installed
	exec $(BIN)/python -m angos.runtime server --host '$(HOST)' --port '$(PORT)' --root '$(ROOT)' $(ARGS)

test: $(VENV)/.installed-all
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadgroup $(ARGS)

check: $(VENV)/.installed-all
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy $(PACKAGES)
	$(BIN)/python -m mypy $(SCRIPTS)

bench: $(VENV)/.installed-all
	$(BIN)/python -m benchmarks --rows '$(ROWS)' $(ARGS)

clean:
	rm -rf $(VENV) angos.egg-info build dist .hypothesis .mypy_cache .ruff_cache .pytest_cache benchmarks/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The build back end is pinned too: without build isolation pip takes the one installed here.
$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(INSTALL) 'setuptools>=77'
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-all: $(VENV)/.installed
	$(INSTALL) --no-build-isolation --editable '.[test,check]'
	@touch $@

$(VENV)/.created:
	@set -e; \
	for python in $(if $(PYTHON),'$(PYTHON)',python3.14 python3.13 python3.12 python3.11 python3 python); do \
		if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			echo "using $$("$$python" --version) ($$python)"; \
			"$$python" -m venv --clear $(VENV); \
			touch $@; \
			exit 0; \
		fi; \
	done; \
	echo 'angos needs Python 3.11 or newer with its venv and ensurepip modules, and found none.' >&2; \
	echo 'Install it (on Debian and Ubuntu: apt install python3 python3-venv), or name it: make run PYTHON=/path/to/python3' >&2; \
	exit 1
