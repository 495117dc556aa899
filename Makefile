# Two commands do all the set-up: `make demo` and `make test`. `make help` lists the rest.

PYTHON ?= python3
# Passed to every pip install: an index, a mirror, a proxy.
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FOLDERS := recsys_had pipelines tests

# The repository's own folder `datasets` must not shadow a library of that name.
export PYTHONSAFEPATH := 1
# Idle OpenMP threads that spin slow a contended backward pass down.
export OMP_WAIT_POLICY := PASSIVE
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help install install-cuda demo test test-all check format lint types imports docs bench bench-ingestion clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## set up .venv for the CPU (done once)

install-cuda: ## set up .venv for CUDA instead
	$(MAKE) --no-print-directory REQUIREMENTS=cuda clean-venv $(STAMP)

REQUIREMENTS := cpu
$(STAMP): $(wildcard requirements/*.txt) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; $$($(PYTHON) --version) was found. Set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install $(PIP_ARGS) --quiet --disable-pip-version-check \
	  -r requirements/$(REQUIREMENTS).txt -r requirements/dev.txt
	$(BIN)/python -m pip install $(PIP_ARGS) --quiet --disable-pip-version-check --no-deps \
	  -r requirements/torchrec.txt
	$(BIN)/python -m pip install $(PIP_ARGS) --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: clean-venv
clean-venv:
	rm -rf $(VENV)

demo: $(STAMP) ## the whole job on generated rows whose best possible AUC is known
	$(BIN)/recsys-had demo

# A file of tests stays in one process, which uses one core; more than four processes want more
# memory than a laptop has.
test: $(STAMP) ## the fast tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n auto --maxprocesses 4 --dist loadfile

test-all: $(STAMP) ## all tests, the slow ones too
	$(BIN)/python -m pytest

check: format lint types imports test ## what must be green before a commit

format: $(STAMP) ## is everything formatted?
	$(BIN)/ruff format --check $(FOLDERS)

lint: $(STAMP) ## ruff's rules
	$(BIN)/ruff check $(FOLDERS)

# mypy and import-linter do not see the mapping of folders into the package, so both run on a copy
# installed as a user's would be.
build/check: $(STAMP) $(shell find recsys_had pipelines -name '*.py')
	rm -rf build/check build/lib build/bdist.*
	$(BIN)/python -m pip install $(PIP_ARGS) --quiet --disable-pip-version-check --no-deps \
	  --no-build-isolation --target build/check .
	touch $@

types: build/check ## mypy, strict
	cd build/check && ../../$(BIN)/python -m mypy --config-file ../../pyproject.toml -p recsys_had

imports: build/check ## who may import whom
	cd build/check && PYTHONPATH=. ../../$(BIN)/lint-imports --no-cache --config ../../pyproject.toml

docs: $(STAMP) ## write docs/interactions.md, and the functions in docs/models.md, from the code
	mkdir -p docs
	$(BIN)/python -m recsys_had.interactions.document > docs/interactions.md
	$(BIN)/python -m recsys_had.interactions.formula_document docs/models.md

bench: $(STAMP) ## throughput of the training loop against the bare module
	$(BIN)/python tests/benchmarks/loop.py

bench-ingestion: $(STAMP) ## memory and speed of ingestion, beside pandas and FuxiCTR (15 GB of disk)
	$(BIN)/python tests/benchmarks/ingestion.py memory --out build/bench-ingestion
	$(BIN)/python tests/benchmarks/ingestion.py speed --out build/bench-ingestion
	$(BIN)/python tests/benchmarks/ingestion.py fuxictr --out build/bench-ingestion

clean: clean-venv ## remove everything that was built
	rm -rf build demo .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
