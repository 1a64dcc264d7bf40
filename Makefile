# Each target sets up .venv by itself; nothing is needed but Python >= 3.11 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
.DEFAULT_GOAL := help

.PHONY: help demo test lint bench phase browser docs clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $@

DEMO := runs/demo
DIRECTIONS := $(DEMO)/grasp/directions.safetensors
EXPLAIN := $(BIN)/graspl explain $(DIRECTIONS) --text configs/organism/text.jsonl
EVALUATE := $(BIN)/graspl validate --config configs/organism/evaluate.yaml --model.directions $(DIRECTIONS)

demo: $(STAMP) ## the whole loop on the embedded organism: naive fit, assumption report, GRASP fit, validate, explain, report
	rm -rf $(DEMO)
	$(BIN)/graspl fit --config configs/organism/naive.yaml --trainer.default_root_dir $(DEMO)/naive
	$(BIN)/graspl identify $(DEMO)/naive --config configs/organism/identify.yaml --out $(DEMO)/natural.safetensors
	$(BIN)/graspl fit --config configs/organism/grasp.yaml --trainer.default_root_dir $(DEMO)/grasp
	$(EXPLAIN)
	$(EVALUATE) --trainer.default_root_dir $(DEMO)/base
	$(EVALUATE) --trainer.default_root_dir $(DEMO)/naive
	$(EVALUATE) --trainer.default_root_dir $(DEMO)/grasp
	$(BIN)/graspl report $(DEMO)/base $(DEMO)/naive $(DEMO)/grasp --out $(DEMO)

DATA ?=
bench: $(STAMP) ## measure speed, ratios side by side in one run; DATA=rows.jsonl for rows of your own; writes *.json
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/throughput.py $(if $(DATA),--data $(DATA))

phase: $(STAMP) ## the phase diagram of identification on a grid of organisms, about an hour; writes docs/phase.*
	$(BIN)/python benchmarks/phase_diagram.py

browser: ## install Chromium, where apt and the rights are there; without it the page's tests are skipped
	@command -v chromium chromium-browser google-chrome > /dev/null || \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update -qq && apt-get install -y -qq chromium > /dev/null; } || \
	echo "no Chromium here: the tests of the report in a browser are skipped"

test: $(STAMP) browser ## run the test suite with coverage
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

lint: $(STAMP) ## format check, lint, types, import layers, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell src tests docs configs README.md CHANGELOG.md

clean: ## remove the environment and caches, keep runs
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis dist build
