# What people type. The virtual environment .venv holds everything that gets installed; the stamp
# files in it let a second call start at once. `make clean` forgets it all.

PYTHON ?= python3
# The index address that PyTorch's own "Get started" page prints for CPU; empty: pip's default.
TORCH_INDEX ?=
# Where the repository is published; empty: the git remote origin. See tools/dist.py.
HOME_URL ?=
# auto, debian or build: see tools/setup_petsc.py
PETSC_ROUTE ?= auto

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/stamps
# setup_petsc.py writes $(VENV)/numpy when its petsc4py needs another NumPy; every install keeps to it.
NUMPY = constraints-numpy$$(cat $(VENV)/numpy 2>/dev/null || echo 2).txt
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c $(NUMPY)
PINS := pyproject.toml constraints.txt constraints-numpy1.txt constraints-numpy2.txt

.PHONY: help demo test lint docs bench crossings dist clean
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

demo: $(STAMP)/app  ## install what the main job needs and run it (no PETSc, MPI or compiler)
	@echo "Fitting rough functions, then the density of carbon dioxide, beside other methods: three minutes"
	$(BIN)/python demos/rough_composition.py
	$(BIN)/mgnet fit demos/data/co2_density.csv --target rho_kg_m3 --held-out 0.6 \
	  --hidden 5,5 --degree 5 --levels 3 --compare --out out/co2 --overwrite

# Compiled files are kept: hundreds of processes load the library, and each would compile it again.
# A crashed worker ends the run: pytest-xdist would start its test again, and a hang would repeat.
test: $(STAMP)/dev $(STAMP)/petsc  ## install everything with PETSc and run all tests
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 MGNET_REQUIRE_PETSC=1 \
	  $(BIN)/python -m pytest -n auto --maxprocesses 4 --max-worker-restart 0 \
	  --no-loadscope-reorder --durations 15

lint: $(STAMP)/dev  ## ruff, pyright, and the English of pages and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python tools/check_english.py
	$(BIN)/python tools/check_docstrings.py

docs: $(STAMP)/docs  ## build the pages into site/ and check their links; DEMOS=0: without running demos
	HOME_URL=$(HOME_URL) DEMOS=$(DEMOS) NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(STAMP)/dev  ## run reduced benchmarks; FULL=1: as published, many hours
	$(BIN)/python benchmarks/run.py $(if $(FULL),--full && $(BIN)/python benchmarks/page/make.py)

crossings: $(STAMP)/crossings  ## use networks with ten other libraries and make the page on it
	OMP_NUM_THREADS=1 $(BIN)/python tests/crossings/table.py --save
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -k onnx tests/knots/test_export.py tests/app

dist: $(STAMP)/dist  ## build and check the archives of a release; HOME_URL=... names the repository
	$(BIN)/python tools/dist.py $(if $(HOME_URL),--home $(HOME_URL))

clean:  ## remove the virtual environment and everything that was built
	rm -rf $(VENV) build dist site out .pytest_cache .ruff_cache .hypothesis .coverage *.egg-info
	find mgnet tests demos benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(STAMP)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "$(PYTHON) is older than Python 3.10; name another one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment (on Debian: install python3-venv)"; exit 1; }
	@mkdir -p $(STAMP) && touch $@

$(STAMP)/app: $(STAMP)/venv $(PINS)
	@echo "Installing PyTorch and the other packages into $(VENV): one to five minutes"
	@[ -n "$(TORCH_INDEX)" ] || [ "$$(uname)" != Linux ] \
	  || echo "(if pip fetches the GPU build, several gigabytes, set TORCH_INDEX: see CONTRIBUTING.md)"
	@# its own index lacks other packages in the versions we pin: those come with the next line
	@$(PIP) $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch
	@$(PIP) -e '.[app]'
	@touch $@

$(STAMP)/dev: $(STAMP)/app
	@echo "Installing the test tools: about a minute"
	@$(PIP) -e '.[app,tables,dev,fast,gpu]'
	@touch $@

$(STAMP)/docs: $(STAMP)/app
	@echo "Installing the documentation tools: about a minute"
	@$(PIP) -e '.[app,docs]'
	@touch $@

$(STAMP)/crossings: $(STAMP)/dev
	@echo "Installing the libraries to try: two minutes"
	@$(PIP) -e '.[app,tables,dev,fast,gpu,crossings]'
	@touch $@

$(STAMP)/dist: $(STAMP)/app
	@echo "Installing the packaging tools: a few seconds"
	@$(PIP) -e '.[app,dist]'
	@touch $@

$(STAMP)/petsc: tools/setup_petsc.py $(STAMP)/app
	@$(BIN)/python tools/setup_petsc.py --base "$$(command -v $(PYTHON))" --route $(PETSC_ROUTE)
	@touch $@
