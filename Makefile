# make demo: the whole run on one CPU.  make test: what has to pass before a change goes in.
# Another torch build:  make demo TORCH=torch==2.13.0 TORCH_INDEX=https://download.pytorch.org/whl/cu130
# (TORCH_INDEX= alone takes the build that PyPI has). After `make clean`, if another one is installed already.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
# Beside PyPI, whose Linux builds bring several gigabytes of CUDA. Where it is out of reach, pip warns and goes on.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
ARGS ?=
# Test processes, one thread each; a file's tests stay in one process, which builds their models once.
JOBS ?= logical

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
PINS := $(VENV)/constraints.txt

# A step that fails leaves no stamp.
.DELETE_ON_ERROR:
.PHONY: help demo test lint notebook docs dist clean
help:
	@echo "make demo      install into $(VENV) and run dareu train; ARGS=\"method=npo\" for another method"
	@echo "make test      ruff, mypy and pytest"
	@echo "make lint      ruff and mypy"
	@echo "make notebook  run the notebook in docs/ and keep its outputs"
	@echo "make docs      build the documentation into build/docs; a warning is an error"
	@echo "make dist      build the source distribution and the wheel into dist/ and check them"
	@echo "make clean     remove $(VENV), builds and caches; runs/ stays"

demo: $(VENV)/.installed
	$(VENV)/bin/dareu train $(ARGS)

test: lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --maxprocesses 4 --dist loadfile --durations 15

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

notebook: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(VENV)/bin/python scripts/run_notebook.py docs/unlearn_in_a_notebook.ipynb

docs: $(VENV)/.installed-docs
	$(VENV)/bin/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

dist: $(VENV)/bin/python
	rm -rf dist
	$(PIP) install build twine
	$(VENV)/bin/python -m build
	$(VENV)/bin/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: each step is done again only where what it was made from is newer.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: | $(VENV)/bin/python
	$(PIP) install --no-deps --retries 1 --timeout 15 $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	touch $@

# Everything else is pinned, what torch needs included; torch is what was chosen above.
$(PINS): constraints.txt $(VENV)/.torch
	grep -v '^torch==' constraints.txt > $@

$(VENV)/.installed: pyproject.toml $(PINS)
	$(PIP) install -c $(PINS) -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install -c $(PINS) -e ".[test]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) install -c $(PINS) -e ".[docs]"
	touch $@
