# Sendwatch in two commands: `make run` serves it with demo traffic, `make test` tests it.
# Variables: PORT=8000 DEMO=1 DATA_DIR=var PYTHON=(the interpreter to make .venv with)
# ARGS=(what pytest gets besides).

PORT ?= 8000
DEMO ?= 1
DATA_DIR ?= var
export DATA_DIR

BIN := .venv/bin
NO := 0 no off false
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install --no-compile
LOCK := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.12 --generate-hashes \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.DELETE_ON_ERROR:
.PHONY: help run test bench screenshots lint format lock

help:
	@echo "make run    serve at http://127.0.0.1:$(PORT)/ with demo traffic (DEMO=0: without)"
	@echo "make test   run the tests, on PostgreSQL and Redis too where they answer"
	@echo "make bench  measure webhooks a second and the way to the socket"
	@echo "make screenshots  pictures of the pages with demo mail, into var/screenshots"
	@echo "make lint   ruff, mypy, djade"
	@echo "make format let ruff and djade correct what they can"
	@echo "make lock   renew the hashed locks (UPGRADE=1: with newer versions)"

run: .venv/run-installed
	@exec $(BIN)/python manage.py serve --prepare --port $(PORT) \
		$(if $(filter $(NO),$(DEMO)),--no-demo,--demo)

test: .venv/dev-installed
	@exec $(BIN)/python -m tests $(ARGS)

bench: .venv/dev-installed
	@exec $(BIN)/python -m bench

screenshots: .venv/dev-installed
	@exec $(BIN)/python -m tests.screenshots $(ARGS)

lint: .venv/dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/djade --target-version 6.0 --check $$(git ls-files 'templates/*.html')

format: .venv/dev-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/djade --target-version 6.0 $$(git ls-files 'templates/*.html')

lock: | $(BIN)/python
	$(PIP) uv
	$(LOCK) $(if $(UPGRADE),--upgrade) --quiet --output-file requirements.lock
	$(LOCK) $(if $(UPGRADE),--upgrade) --quiet --output-file requirements-dev.lock \
		--group dev --constraint requirements.lock

# --- The virtual environment: made once, installed into only when a lock has changed ---

.venv/run-installed: requirements.lock | $(BIN)/python
	@echo "installing the locked dependencies into .venv ..."
	@$(PIP) --require-hashes --requirement $<
	@touch $@

.venv/dev-installed: requirements-dev.lock | $(BIN)/python
	@echo "installing the locked dependencies into .venv ..."
	@$(PIP) --require-hashes --requirement $<
	@touch $@ .venv/run-installed

# pyenv's python3.x may be a shim without a version behind it: only one that runs counts.
CANDIDATES = $(PYTHON) python3.13 python3.14 python3.12 \
	$(wildcard $(HOME)/.pyenv/versions/3.1[2-9]*/bin/python3) python3
NEEDED = import sys, ensurepip, sqlite3, ssl, venv; sys.exit(sys.version_info < (3, 12))

$(BIN)/python:
	@for python in $(CANDIDATES); do \
		"$$python" -c '$(NEEDED)' >/dev/null 2>&1 && exec "$$python" -m venv --clear .venv; \
	done; \
	echo "Sendwatch needs Python 3.12, 3.13 or 3.14 with venv and sqlite3, and found none:" \
		"install one (apt install python3.13-venv, or pyenv install 3.13)" \
		"or name it with make PYTHON=/path/to/python3.13" >&2; exit 1
