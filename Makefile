# Each target sets up .venv by itself; nothing is needed but Python >= 3.11 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
.DEFAULT_GOAL := help

.PHONY: help demo test thorough extras coverage lint bench phase browser docs notebooks fuzz crash audit-deps dist clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $@

demo: $(STAMP) ## the whole loop on the embedded organism: naive fit, assumption report, GRASP fit, evaluation, explanation, report
	rm -rf runs/demo
	$(BIN)/graspl demo --out runs/demo

DATA ?=
bench: $(STAMP) ## measure speed, ratios side by side in one run; DATA=rows.jsonl for rows of your own; writes *.json
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/throughput.py $(if $(DATA),--data $(DATA))

phase: $(STAMP) ## the phase diagram of identification on a grid of organisms, about an hour; writes results/phase.json
	$(BIN)/python benchmarks/phase_diagram.py

browser: ## install Chromium, where apt and the rights are there; without it the page's tests are skipped
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null || command -v google-chrome > /dev/null || \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update -qq && apt-get install -y -qq chromium > /dev/null; } || \
	echo "no Chromium here: the tests of the report in a browser are skipped"

# Torch's threads would take from one another: each worker has one
WORKERS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test: $(STAMP) browser ## run the test suite
	$(WORKERS) --durations 40

thorough: $(STAMP) ## run the tests that take many minutes: an organism is pretrained again
	$(BIN)/python -m pytest -m thorough

extras: $(STAMP) ## install graspl's extras as the pages say, beside .venv, and run what needs them; asks the package index
	$(BIN)/python -m pytest -m extras -n 2 --dist loadgroup

coverage: $(STAMP) ## run the test suite and say which lines no test reaches; about half as long again
	$(WORKERS) --cov --cov-report=term:skip-covered

docs: $(STAMP) ## put figures into pages, draw imports, build the documentation into site/; any warning is an error
	$(BIN)/python results/insert.py
	$(BIN)/python docs/draw_imports.py
	$(BIN)/mkdocs build --strict

notebooks: $(STAMP) ## run the notebooks and keep what they show
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False $(filter-out notebooks/on_a_free_gpu.ipynb,$(wildcard notebooks/*.ipynb))

FUZZ_SECONDS ?= 300
FUZZ_SEED ?=
fuzz: $(STAMP) ## fuzz every kind of file that graspl reads for FUZZ_SECONDS of work, on new examples each time or those of FUZZ_SEED
	GRASPL_FUZZ_SECONDS=$$(( $(FUZZ_SECONDS) / 36 )) GRASPL_FUZZ_SEED=$(FUZZ_SEED) $(WORKERS) -q tests/reliability/test_fuzzing.py

audit-deps: $(STAMP) ## look up known vulnerabilities of the versions in constraints.txt and of the oldest allowed; asks an index of advisories
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group audit || true
	$(BIN)/python tests/audit_deps.py

crash: $(STAMP) ## kill each command at every change of a file and look at what follows, hours; Linux on x86-64; writes results/crash_points.json
	$(BIN)/python tests/reliability/crash_points.py

dist: $(STAMP) ## build sdist and wheel, install the wheel alone in a clean environment and run the demo there
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(PYTHON) -m venv dist/clean
	dist/clean/bin/python -m pip install --quiet --constraint constraints.txt torch
	dist/clean/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd dist && clean/bin/graspl configs && clean/bin/graspl demo

lint: $(STAMP) ## format check, lint, types, import layers, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell src tests docs configs results README.md CONTRIBUTING.md CHANGELOG.md

clean: ## remove the environment and caches, keep runs
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis dist build
