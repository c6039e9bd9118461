# Needs Python 3.10 to 3.13, make and pip. Everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: book test pytest lint lock clean help

book: $(INSTALLED) ## build the book from the committed records: _build/html/index.html
	$(BIN)/dcn build

test: $(INSTALLED) ## install all that is needed and pass the tests
	$(MAKE) --jobs 2 lint pytest

# One process more than there are processors: tests wait for browsers, kernels and each other.
pytest: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses $$(($$($(PYTHON) -c 'import os; print(min(os.cpu_count(), 4))') + 1)) \
		--dist loadfile --no-loadscope-reorder

lint: $(INSTALLED) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: $(INSTALLED) ## pin the newest versions of all dependencies, for all supported Pythons
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml dcn_study/pyproject.toml --all-extras --universal --python-version 3.10 \
		--generate-hashes --upgrade --no-emit-index-url --no-emit-find-links \
		--no-emit-package deformable-conv-digits --quiet --output-file requirements.lock

clean: ## remove what was built; records, runs and checkpoints stay
	rm -rf _build .venv *.egg-info dcn_study/*.egg-info
	find dcn dcn_study tests -name __pycache__ -prune -exec rm -rf {} +

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1 - \2/p' $(MAKEFILE_LIST)

$(INSTALLED): requirements.lock pyproject.toml dcn_study/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else "Python 3.10 to 3.13 is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable . --editable ./dcn_study
	touch $@
