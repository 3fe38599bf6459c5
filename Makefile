# make setup | test | demo | demo-full | reproduce | lint | clean; each does its own set-up in .venv
# make reproduce reruns docs/results.md on the embedded dataset, BENCHMARK=mocap BVH=folder on the
# motion capture of docs/mocap.md, BENCHMARK=both on both; it says first how long that takes
PYTHON ?= python3
BENCHMARK ?= synthetic
BIN := .venv/bin

.PHONY: setup test demo demo-full reproduce lint format clean

setup: .venv/.up-to-date

.venv/.up-to-date: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[vis,trackers,dev]'
	touch $@

test: lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: setup
	$(BIN)/python -m train.demo

demo-full: setup
	$(BIN)/python -m train.demo --full

reproduce: setup
	$(BIN)/python -m train.reproduce --benchmark $(BENCHMARK) $(if $(BVH),--bvh_dir '$(BVH)')

clean:
	rm -rf .venv .pytest_cache .ruff_cache *.egg-info
