# make setup | test | demo | lint | clean; each does its own set-up in .venv
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup test demo lint format clean

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

clean:
	rm -rf .venv .pytest_cache .ruff_cache *.egg-info
