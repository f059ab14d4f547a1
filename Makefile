# One command per task; `make` alone lists them. Needs Python 3.11 or newer, nothing else.
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help up test test-all test-outside test-upgrade lint format replay bench bench-resilience chaos-payments bench-checkout bench-outbox soak chaos-outbox docs coverage release clean

BIN := .venv/bin
TOOLS := .cache/tools
READY := .venv/installed
SETTINGS := DEMO KAFKA DATABASE_URL SMTP_URL GATEWAY_PORT DISCOVERY_PORT BACKSTAY_HOME SCALE DOORS
export $(SETTINGS)
DIR ?= data/northwind
CONCURRENCY ?= 16
STOCK ?= enough
STORM = $(if $(filter yes,$(CHAOS)),--chaos --seed $(or $(SEED),1) --kills $(KILLS) $(foreach each,$(SCALE),--scale $(each)))
PYTEST = $(BIN)/pytest --dist loadgroup
SHORT := tests/backstay tests/shop tests/lab tests/conformance tests/docs tests/examples tests/typing tests/acceptance/test_shop.py
MINUTES ?= 30
EVENTS ?= 500000
KILLS ?= 100

# Run a script by the first Python that is new enough.
define with-python
for python in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then exec $$python $(1); fi; \
done; \
echo "no Python 3.11 or newer found: install one, then run make again" >&2; exit 2
endef

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(READY) ## start everything, place orders, show their way; Ctrl-C stops it (DEMO=no, KAFKA=apache)
	@$(BIN)/python -m lab up

test: $(READY) ## the short test run, minutes (ARGS="-k checkout")
	@$(PYTEST) -n $(or $(WORKERS),3) -m "not outside and not upgrade" $(SHORT) $(ARGS)

test-all: $(READY) ## every test: integration, the whole system, kill -9 (ARGS="tests/integration")
	@$(PYTEST) -n $(or $(WORKERS),2) -m "not outside and not upgrade" $(ARGS)

test-upgrade: $(READY) ## an earlier release stops, this one starts on its data: nothing lost, repeats the same (needs Java and Maven)
	@$(BIN)/pytest -m upgrade tests/upgrade $(ARGS)

test-outside: $(READY) ## tests beside servers, clients and tools of others that are installed here
	@$(PYTEST) -n $(or $(WORKERS),2) -m outside $(ARGS)

lint: $(READY) ## check style, types and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports
	@$(BIN)/python .ci/wording.py

format: $(READY) ## put the code into its form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

replay: $(READY) ## replay a real shop's orders and reconcile to the cent (DIR, CONCURRENCY, STOCK=as-is, KAFKA, CHAOS=yes SEED KILLS)
	@$(BIN)/python -m lab replay "$(DIR)" --concurrency $(CONCURRENCY) --stock $(STOCK) $(STORM)

soak: $(READY) ## constant load with a fault every 30 s; memory, descriptors and depths plotted (MINUTES)
	@$(BIN)/python -m lab soak --minutes $(MINUTES)

bench-checkout: $(READY) ## orders a second, CPU and memory of the whole checkout, on Apache Kafka (ARGS)
	@$(BIN)/python benchmarks/checkout/bench_checkout.py $(ARGS)

chaos-payments: $(READY) ## checkouts while payments is slow, failing, dead, flapping; with a plot (RATE SECONDS ONLY="slow dead")
	@RATE=$(RATE) SECONDS=$(SECONDS) ONLY="$(ONLY)" $(BIN)/python -m lab.experiments

bench-resilience: $(READY) ## resilience beside its rivals, with every Python at hand; writes benchmarks/RESULTS.md
	@$(BIN)/python -m benchmarks.bench_resilience

bench-outbox: $(READY) ## the outbox's relays and Debezium on one table; writes benchmarks/RESULTS.md (ARGS="drain --runs 3")
	@$(BIN)/python benchmarks/bench_outbox.py $(ARGS)

bench: $(READY) ## measure what the design promises
	@for file in benchmarks/bench_*.py benchmarks/*/bench_*.py; do [ -e "$$file" ] || continue; $(BIN)/python "$$file" || exit 1; done

chaos-outbox: $(READY) ## catch seeded bugs, then kill everything for a while and prove that nothing was lost (SEED, EVENTS, KILLS)
	@PYTHONPATH=.:src $(BIN)/python -m tests.chaos.run --mutants $(if $(SEED),--seed $(SEED))
	@PYTHONPATH=.:src $(BIN)/python -m tests.chaos.run $(if $(SEED),--seed $(SEED)) --events $(EVENTS) --kills $(KILLS)

docs: $(TOOLS)/installed ## build the documentation as a site, strictly, into build/site
	@NO_MKDOCS_2_WARNING=1 $(TOOLS)/bin/mkdocs build --quiet
	@echo "build/site/index.html"

coverage: $(READY) ## the short test run with the branches it covers; fails below the floor in pyproject.toml (ARGS)
	@$(PYTEST) -n $(or $(WORKERS),3) -m "not outside and not upgrade" --cov --cov-report= $(SHORT) $(ARGS)
	@$(BIN)/coverage report --skip-covered --skip-empty

release: $(READY) $(TOOLS)/installed ## build and check sdist and wheel of this commit; TAG=yes also makes the tag
	@$(BIN)/python .ci/release.py $(TOOLS) $(if $(filter yes,$(TAG)),--tag)

clean: ## remove what was made here: environment, state, caches
	@$(call with-python,.ci/clean.py)

$(READY): requirements.lock pyproject.toml
	@$(call with-python,.ci/install.py)

$(TOOLS)/installed: requirements-tools.lock | $(READY)
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(TOOLS)
	@$(BIN)/uv pip install --quiet --python $(TOOLS)/bin/python --require-hashes --no-deps -r requirements-tools.lock
	@touch $@
