# `make demo` and `make test` need nothing but Python 3.11+, make and git.
PYTHON ?= python3
CONSTRAINTS ?= -c constraints.txt
# Fast tests run in so many processes, a file in one of them. Slow ones have ports and folders of their own and mostly
# wait, so more of them run beside each other; of those that start a Flower of their own one at a time, in one of the
# processes (two Rays starve each other on two cores): tests/conftest.py groups them. Those that measure how soon
# something happens run at the end, one after the other, with nothing beside them.
WORKERS ?= 2
SLOW_WORKERS ?= 3
PARALLEL := --dist loadfile --no-loadscope-reorder
SLOW_PARALLEL := --dist loadgroup --no-loadscope-reorder
# Files with such a test: to import all the others as well takes half a minute.
SLOW_FILES = $(shell grep -rl --include='test_*.py' 'mark[.]slow' tests | sort)
ALONE_FILES = $(shell grep -rl --include='test_*.py' 'mark[.]alone' tests | sort)
# Hundreds of processes import the package and a thousand modules of tests are read three times: compiled once, also
# where the caller's environment would have it otherwise.
export PYTHONDONTWRITEBYTECODE :=
VENV := .venv
BIN := $(VENV)/bin
# Where mypy and import-linter see the package as it is installed: strategies/ and clients/ inside flower_edge/.
TREE := build/tree

.DEFAULT_GOAL := help
# Tests take both cores, and some want the machine for themselves: one target after the other, also under `make -j`.
.NOTPARALLEL:
.PHONY: help install demo test test-fast test-slow test-alone test-all lint docs bench clean

help:  ## say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## make .venv and install everything the demo, the tests and the benchmarks need

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[dev]'
	@touch $@

demo: install  ## run the quickstart: 12 terminals, 3 edges, 1 centre learn real digits through `flwr run`
	$(BIN)/flower-edge run scenarios/quickstart

test: test-fast test-slow test-alone  ## every test but the longest matrices, fast ones first

test-fast: install
	$(BIN)/python -m pytest -n $(WORKERS) $(PARALLEL) -m 'not slow and not full'

test-slow: install
	$(BIN)/python -m pytest -n $(SLOW_WORKERS) $(SLOW_PARALLEL) -m 'slow and not alone and not full' $(SLOW_FILES)

test-alone: install
	$(BIN)/python -m pytest -m 'alone and not full' $(ALONE_FILES)

test-all: install  ## every test, whole matrices included
	$(BIN)/python -m pytest -n $(WORKERS) $(PARALLEL) -m 'not slow'
	$(BIN)/python -m pytest -n $(SLOW_WORKERS) $(SLOW_PARALLEL) -m 'slow and not alone' $(SLOW_FILES)
	$(BIN)/python -m pytest -m 'alone' $(ALONE_FILES)

lint: install  ## ruff, mypy --strict, import contracts, the site without a warning
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf $(TREE) && mkdir -p $(TREE) && cp -r flower_edge $(TREE)/ && cp -r strategies clients $(TREE)/flower_edge/
	MYPYPATH=$(TREE) $(BIN)/mypy
	cd $(TREE) && PYTHONPATH=. ../../$(BIN)/lint-imports --config ../../pyproject.toml --no-cache
	$(MAKE) docs

docs: install  ## the documents as a site in build/site; a lost link or page, or a request to another host, is an error
	@rm -rf $(TREE) && mkdir -p $(TREE) && cp -r flower_edge $(TREE)/ && cp -r strategies clients $(TREE)/flower_edge/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@! grep -rlE --include='*.html' '<(script|img|iframe)[^>]* src="https?:|<link[^>]* href="https?:' build/site \
		|| { echo 'these pages ask another host for something'; exit 1; }

bench: install  ## the quick form of every benchmark
	$(BIN)/python -m benchmarks.simulation --quick
	$(BIN)/python -m benchmarks.hierarchy --quick
	$(BIN)/python -m benchmarks.topology_control --quick
	$(BIN)/python -m benchmarks.encoding --quick
	$(BIN)/python -m benchmarks.split --quick
	$(BIN)/python -m benchmarks.filtering --quick
	$(BIN)/python -m benchmarks.provision --quick
	$(BIN)/python -m benchmarks.fringe --quick
	$(BIN)/python -m benchmarks.peers --quick
	$(BIN)/python -m benchmarks.deployment --quick

clean:  ## remove what the other targets made, but not .venv
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
