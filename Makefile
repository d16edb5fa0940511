# Everything a newcomer needs; each target does its own set-up in .venv.
#   make demo    decode with a small model whose KV cache lives in kvops pages
#   make test    build the wheel, install it, run the test-suite
# PYTHON=python3.12 chooses the interpreter, TORCH='torch==2.11.0' the torch to test with.
PYTHON ?= python3
TORCH ?= torch>=2.10
BIN := .venv/bin

.PHONY: demo test wheel lint workflows bench clean

demo: .venv/installed
	$(BIN)/python examples/paged_decoder.py $(ARGS)

test: .venv/installed
	$(BIN)/pytest -n 2 $(ARGS)

wheel: .venv/environment
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

lint: .venv/python
	$(BIN)/python -m pip install --quiet "ruff>=0.9" "clang-format>=19"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.cu' 'csrc/*.cuh' \
		| xargs $(BIN)/clang-format --dry-run --Werror

# actionlint fetches its program when pip installs it, from GitHub.
workflows: .venv/python
	$(BIN)/python -m pip install --quiet --group workflows
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/actionlint
	$(BIN)/zizmor --offline --min-severity medium .github

bench: .venv/installed
	$(BIN)/python benchmarks/run.py $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info

.venv/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/environment: .venv/python pyproject.toml
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --group test
	touch $@

.venv/installed: .venv/environment $(shell git ls-files csrc kvops build_backend setup.py)
	$(MAKE) wheel
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall dist/kvops-*.whl
	touch $@
