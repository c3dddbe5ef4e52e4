# `make demo` and `make test` work on a fresh machine with Python, pip and git.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VIDEOS ?=
RUN_DIR ?= runs/demo
RESULTS ?= ../results

.PHONY: help env rooms docs test test-slow test-ray test-extras lint types wheel demo results clean

help:
	@echo "make demo [VIDEOS=folder]  environment, then the demo: generated clips, pre-training, all tasks, a report"
	@echo "make test                  environment, then lint, types and the tests"
	@echo "make test-slow             the tests marked slow"
	@echo "make test-ray              the extra ray, then the tests on a Ray cluster of this machine"
	@echo "make test-extras           the extras index, transformers, mteb, mlflow and lora, then their tests"
	@echo "make results [RESULTS=folder]  the experiments that the docs report; continues where it stopped"
	@echo "make wheel                 build the wheel and run it in an empty environment"
	@echo "make docs                  the extra docs, then the site of the documentation, in site/; all links are checked"
	@echo "make rooms                 draw which parts of the package import which, as rooms.svg"
	@echo "make clean                 remove the environment, builds and caches (runs stay)"

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq -c constraints.txt -e ".[dev,serve]"
	touch $@

test: env lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow and not gpu and not weights and not ray"

test-slow: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow

# One after the other: each has a cluster to itself.
test-ray: env
	$(BIN)/pip install -qq -c constraints.txt -e ".[ray]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ray

# What the base environment skips.
test-extras: env
	$(BIN)/pip install -qq -c constraints.txt -e ".[index,transformers,mteb,mlflow,lora]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/archive tests/page/test_moments.py tests/page/test_serve.py tests/integrations tests/training/test_trackers.py tests/tasks/test_adapters.py

lint: env
	$(BIN)/ruff check src tests scripts experiments
	$(BIN)/ruff format --check src tests scripts experiments
	$(BIN)/lint-imports --no-cache

# Needs graphviz (dot).
rooms: env
	cd src && ../$(BIN)/import-linter drawgraph deepavfusion | dot -Tsvg -o ../rooms.svg

types: env
	$(BIN)/mypy

wheel: env
	rm -rf dist build
	$(BIN)/python -m build --wheel --outdir dist .
	rm -rf $(VENV)-wheel
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/pip install -qq --no-deps dist/*.whl
	cd / && $(abspath $(VENV)-wheel)/bin/deepavfusion --version
	rm -rf $(VENV)-wheel

# The site, a warning being an error.
docs: env
	$(BIN)/pip install -qq -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

demo: env
	$(BIN)/deepavfusion demo --run_dir $(RUN_DIR) $(if $(VIDEOS),--videos "$(VIDEOS)")

results: env
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments --results $(RESULTS)
	$(BIN)/python scripts/make_docs.py

clean:
	rm -rf $(VENV) $(VENV)-wheel build dist site .pytest_cache .mypy_cache .ruff_cache
