# Every target makes .venv and installs what it needs by itself: see .ci/venv.py.
# PYTHON=... names the Python to make it with; ARGS=... goes to pytest, or to the demo.

.DEFAULT_GOAL := help
.PHONY: help demo test coverage test-all chaos lint format bench plots docs clean

PYTHON_IS_GIVEN := $(if $(filter undefined,$(origin PYTHON)),,--this-python)
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)

# $(call install,what): the first line of a recipe.
define install
@python='$(PYTHON)'; \
"$${python:-false}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "prewarmkit needs Python 3.11 or newer, and found none as $${python:-python3, or python3.11 to python3.14}."; \
	echo "Install one (Debian, Ubuntu: apt install python3 python3-pip), or name it: make PYTHON=/path/to/python3.12 $@"; \
	exit 1; } >&2; \
"$$python" .ci/venv.py $(PYTHON_IS_GIVEN) $(1)
endef

VENV_PYTHON := .venv/bin/python

help: ## what there is
	@echo "make ..."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

demo: ## the main job on real servers of its own: 300 media, warmed, looked up, delivered
	$(call install,extra:demo)
	@$(VENV_PYTHON) -m prewarmkit demo $(ARGS)

test: ## the tests, without the slow ones
	$(call install,group:tests extra:demo)
	@$(VENV_PYTHON) -m pytest --timeout 240 -m "not slow and not live" $(ARGS)

coverage: ## the same, which takes twice as long, and how much they cover
	$(call install,group:tests extra:demo)
	@$(VENV_PYTHON) .ci/cover.py --timeout 240 -m "not slow and not live" $(ARGS)

test-all: ## every test but those that need a real account
	$(call install,group:tests extra:demo)
	@$(VENV_PYTHON) -m pytest --timeout 900 -m "not live" $(ARGS)

chaos: ## the long form of what breaks things on purpose: kills, restarts, faults of every kind
	$(call install,group:tests extra:demo)
	@$(VENV_PYTHON) -m pytest tests/chaos --timeout 900 $(ARGS)

lint: ## ruff, mypy, pyright, import-linter
	$(call install,group:lint group:tests group:bench group:docs extra:demo)
	$(VENV_PYTHON) -m ruff check
	$(VENV_PYTHON) -m ruff format --check
	$(VENV_PYTHON) -m mypy
	$(VENV_PYTHON) -m pyright
	.venv/bin/lint-imports

format: ## ruff format, and what ruff can mend
	$(call install,group:lint)
	$(VENV_PYTHON) -m ruff check --fix-only --quiet
	$(VENV_PYTHON) -m ruff format

bench: ## the benchmarks, with the peers beside them
	$(call install,group:bench)
	@$(VENV_PYTHON) -m pytest benchmarks $(ARGS)

plots: ## the benchmarks of the queue, drawn into docs/images
	$(call install,group:bench)
	@$(VENV_PYTHON) -m pytest benchmarks --plots docs/images -k ring_queue $(ARGS)

docs: ## the documentation, into docs/_build
	$(call install,group:docs)
	@$(VENV_PYTHON) -m sphinx -n -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean: ## removes all that make has made, .venv too
	rm -rf .venv .venv.lock .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist docs/_build
	find src tests benchmarks docs .ci -name __pycache__ -type d -prune -exec rm -rf {} +
