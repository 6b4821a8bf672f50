# Every target makes its own environment when it is needed, and only then.
#   make quickstart   a language model from nothing: trained, taught to chat, measured, talking
#   make test         the whole suite          make check   format, lint, types, architecture
#   make prove        the long proofs; writes docs/results.json
PYTHON ?= python3
BIN := .venv/bin
USE := .venv/.installed
DEVELOP := .venv/.installed-tests
ARGS ?=

.PHONY: quickstart test check prove clean

quickstart: $(USE)
	$(BIN)/chainrule quickstart $(ARGS)

test: $(DEVELOP)
	$(BIN)/python -m pytest -n 2 -m "not prove" $(ARGS)

check: $(DEVELOP)
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/pyright
	$(BIN)/python -m pytest -x tests/test_architecture.py tests/laws $(ARGS)

prove: $(DEVELOP)
	$(BIN)/python -m pytest -m prove $(ARGS)

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(USE): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(DEVELOP): pyproject.toml constraints.txt $(USE)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf .venv build dist
