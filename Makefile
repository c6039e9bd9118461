# Needs Python 3.10 to 3.13, make and pip. Everything else goes into .venv: for `make book` the first part of the lock,
# for tests and checks all of it.
PYTHON ?= python3
BIN := .venv/bin
BOOK := .venv/installed
TESTS := .venv/tests-installed
EDITABLE := --quiet --no-deps --no-build-isolation --editable . --editable ./dcn_study
TESTS_NEED := \# Tests and checks need these too.
PROCESSES := $$(($$($(PYTHON) -c 'import os; print(min(os.cpu_count(), 4))') + 1))
PYTEST = $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: book test test-all pytest slow lint lock clean help

book: $(BOOK) ## build the book from the committed records: _build/html/index.html
	$(BIN)/dcn build

test: $(TESTS) ## install all that is needed and pass the tests, but for the slow ones
	$(MAKE) --jobs 2 lint pytest

test-all: test ## pass the slow tests too: of the whole book, made small
	$(MAKE) slow

# One process more than there are processors: tests wait for browsers, kernels and each other.
pytest: $(TESTS)
	$(PYTEST) -m 'not slow'

slow: $(TESTS)
	$(PYTEST) -m slow

lint: $(TESTS) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

LOCK = $(BIN)/uv pip compile dcn_study/pyproject.toml --universal --python-version 3.10 --generate-hashes --quiet \
	--no-emit-index-url --no-emit-find-links --no-emit-package deformable-conv-digits
PACKAGES = awk 'NR == FNR { if (/^[a-z0-9]/) book[$$1]; next } /^[a-z0-9]/ { shown = ($$1 in book) == wanted } shown'

lock: $(TESTS) ## pin the newest versions of all dependencies, for all supported Pythons
	$(BIN)/pip install --quiet uv
	$(LOCK) pyproject.toml --all-extras --upgrade --output-file .venv/all.lock
	grep '^[a-z0-9].*==' .venv/all.lock | sed 's/ \\$$//' > .venv/pins
	$(LOCK) --extra cluster --constraint .venv/pins --output-file .venv/book.lock
	{ echo '# Made by `make lock`.'; $(PACKAGES) wanted=1 .venv/book.lock .venv/all.lock; echo; echo '$(TESTS_NEED)'; \
		$(PACKAGES) wanted=0 .venv/book.lock .venv/all.lock; } > requirements.lock

clean: ## remove what was built; records, runs and checkpoints stay
	rm -rf _build .venv *.egg-info dcn_study/*.egg-info
	find dcn dcn_study tests -name __pycache__ -prune -exec rm -rf {} +

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1 - \2/p' $(MAKEFILE_LIST)

$(BOOK): requirements.lock pyproject.toml dcn_study/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else "Python 3.10 to 3.13 is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	sed '/^$(TESTS_NEED)/,$$d' requirements.lock > .venv/book.lock
	$(BIN)/pip install --quiet --require-hashes --requirement .venv/book.lock
	$(BIN)/pip install $(EDITABLE)
	touch $@

$(TESTS): $(BOOK)
	$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock
	touch $@
