# Two commands: `make demo` shows the main job on a real clip, `make test` runs every check.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint audit bench soak clean

demo: $(VENV)/.demo
	@$(BIN)/maven demo

test: $(VENV)/.test lint
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(VENV)/.test
	@$(PIP) -e '.[audit]'
	@$(BIN)/python tools/audit.py

bench: $(VENV)/.test
	$(BIN)/python bench/all.py --quick -o bench-out

soak: $(VENV)/.test
	$(BIN)/python tools/soak.py -o soak-out --into docs/reliability.md

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "Setting up (once, a few minutes) ..."
	@$(PIP) -e .
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) maven-demo bench-out soak-out .mypy_cache .pytest_cache .ruff_cache
