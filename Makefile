# Everything a developer or CI runs. Each target sets up `.venv` by itself; a second run starts at once.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
RUN := $(BIN)/python -m

.PHONY: quickstart test check docs bench clean

quickstart: .venv/.quickstart            ## rank four backbones on embedded data, offline
	$(BIN)/featcache quickstart

test: check                              ## lint, types, layers, then all tests
	$(RUN) pytest -q

check: .venv/.dev                        ## lint, format, types, layers, generated docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(RUN) tests.cli.reference --check

docs: .venv/.dev                         ## write docs/cli.md from the commands' --help
	$(RUN) tests.cli.reference

bench: .venv/.dev                        ## the short benchmarks; figures go into benchmarks/RESULTS.md
	$(RUN) benchmarks.store
	$(RUN) benchmarks.extraction

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

.venv/.python:
	@test -n "$(PYTHON)" || { echo "featcache needs Python 3.11 or newer; none was found. \
	Install one, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "$(PYTHON) cannot make environments: install its venv \
	module (Debian: apt install python3-venv), or name another: make PYTHON=/path/to/python3"; exit 1; }
	$(RUN) pip install --quiet --disable-pip-version-check uv
	@touch $@

.venv/.quickstart: .venv/.python pyproject.toml constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[quickstart]'
	@touch $@

.venv/.dev: .venv/.python pyproject.toml constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'
	@touch $@ .venv/.quickstart
