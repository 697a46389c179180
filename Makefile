# `make run` and `make test` do all set-up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup run test check house browser-check audit lock clean

help:
	@echo "make run     dashboard on 127.0.0.1:8501 (another port if that is taken)"
	@echo "make test    format, lint, types, import rules, tests, coverage (NO_BROWSER=1 skips the browser)"
	@echo "make house   how large rooms, modules and functions are, and what is over its target"
	@echo "make audit   known vulnerabilities in the locked packages, where the database is reachable"
	@echo "make lock    write requirements.lock anew from pyproject.toml"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("LLM Shield needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another with make PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

run: setup
	$(BIN)/shield dashboard

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/house.py

house: setup
	$(BIN)/python tests/house.py

browser-check:
ifdef NO_BROWSER
	@echo "NO_BROWSER is set: the browser tests are skipped"
else
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  { echo "No Chromium found. Install it with: sudo apt-get install -y chromium   (or skip these tests: NO_BROWSER=1 make test)"; exit 1; }
endif

test: browser-check check
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

audit: setup
	@said=$$($(BIN)/pip-audit --require-hashes --disable-pip -r requirements.lock 2>&1); code=$$?; \
	skipped=$$(echo "$$said" | grep -c "could not be audited"); \
	echo "$$said" | grep -v "could not be audited"; \
	if [ $$code -gt 1 ]; then echo "not checked: the vulnerability database is not reachable from here"; exit 0; fi; \
	if [ $$skipped -gt 0 ]; then echo "not checked: $$skipped packages, whose database entries are not reachable from here"; fi; \
	exit $$code

lock:
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --all-build-deps \
	  --extra dev -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
