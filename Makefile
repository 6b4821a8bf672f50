# Every target makes its own environment when it is needed, and only then.
#   make quickstart   a language model from nothing: trained, taught to chat, measured, talking
#   make test         the whole suite          make check   format, lint, types, architecture
#   make prove        the long proofs; writes docs/results.json
PYTHON ?= python3
BIN := .venv/bin
USE := .venv/.installed
DEVELOP := .venv/.installed-tests
ARGS ?=
# The tested versions; where a torch works already, without its line, or pip would replace the build that was chosen.
LIMITS := .venv/constraints.txt
LIMIT = if $(BIN)/python -c 'import torch' 2>/dev/null; then grep -v '^torch==' constraints.txt; \
	else cat constraints.txt; fi > $(LIMITS)

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
	@$(LIMIT)
	$(BIN)/python -m pip install -q -c $(LIMITS) torch
	$(BIN)/python -m pip install -q -c $(LIMITS) -e .
	touch $@

$(DEVELOP): pyproject.toml constraints.txt $(USE)
	@$(LIMIT)
	$(BIN)/python -m pip install -q -c $(LIMITS) -e '.[test]'
	touch $@

clean:
	rm -rf .venv build dist
