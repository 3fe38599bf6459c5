# make setup | test | test-long | test-browser | test-mutants | docs-check | demo | demo-full |
# demo-images | demo-images-full | reproduce | lint | clean; each does its own set-up in .venv
# make reproduce reruns docs/results.md on the embedded dataset, BENCHMARK=mocap BVH=folder on the
# motion capture of docs/mocap.md, BENCHMARK=both on both; it says first how long that takes
PYTHON ?= python3
BENCHMARK ?= synthetic
BIN := .venv/bin

# The interpreter that .venv has, or will have; the pinned versions are built for these Pythons
INTERPRETER = $(or $(wildcard $(BIN)/python),$(PYTHON))
SUITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))

.PHONY: setup test test-long test-browser test-mutants docs-check demo demo-full demo-images demo-images-full reproduce lint format clean

setup: .venv/.up-to-date
	@echo 'ready; for the commands of the README: source .venv/bin/activate'

.venv/.up-to-date: pyproject.toml constraints.txt
	@$(INTERPRETER) -c '$(SUITS)' 2>/dev/null || { \
	    echo 'error: SoPo needs Python 3.11 to 3.14, which $(INTERPRETER) is not; name one:' \
	        '$(if $(wildcard .venv),rm -r .venv; )make setup PYTHON=python3.12' >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@echo 'installing the packages of constraints.txt into .venv: minutes, as torch is large'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[vis,trackers,images,export,smpl,wordllama,lora,dev]'
	touch $@

# Changes the modules of tests/mutants.py in one place at a time: hours; MODULE=FILE for one of
# them, SHARE=0.2 for a fifth of the changes
test-mutants: .venv/.up-to-date
	$(BIN)/python -m tests.mutants $(if $(MODULE),--modules $(MODULE)) $(if $(SHARE),--share $(SHARE))

test: lint
	$(BIN)/python -m pytest

# Every test, 100,000 fuzzed files among them, and KILLS kills of whole commands, whose ends must
# equal those of undisturbed ones
KILLS ?= 200
test-long: lint
	$(BIN)/python -m pytest -m 'not browser'
	folder=$$(mktemp -d) && $(BIN)/python -m tests.kills --kills $(KILLS) --folder $$folder && rm -r $$folder

# The viewer in a headless Chromium, which has to be there: apt-get install chromium
test-browser: .venv/.up-to-date
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[browser]'
	$(BIN)/python -m pytest -m browser

# Every command and link of README.md and docs, and the page of results against its tables
docs-check: .venv/.up-to-date
	$(BIN)/python -m pytest tests/test_docs.py tests/eval/test_results_page.py

lint: .venv/.up-to-date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.up-to-date
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: .venv/.up-to-date
	$(BIN)/python -m train.demo

demo-full: .venv/.up-to-date
	$(BIN)/python -m train.demo --full

demo-images: .venv/.up-to-date
	$(BIN)/python -m train.demo --images

demo-images-full: .venv/.up-to-date
	$(BIN)/python -m train.demo --images --full

reproduce: .venv/.up-to-date
	$(BIN)/python -m train.reproduce --benchmark $(BENCHMARK) $(if $(BVH),--bvh_dir '$(BVH)')

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache build *.egg-info
