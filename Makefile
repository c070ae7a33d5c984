# `make help` lists the targets. They need Python 3.11 or later, make and a package index; each
# creates the environment that it runs in, once.

PYTHON ?= python3
ARGS ?=
# Two processes; each may take 8 GB, and gets the tests of a file one after another.
WORKERS ?= --numprocesses 2 --dist worksteal
VENV := .venv
FLOOR := .venv-floor
PEERS := .venv-peers
DIST := .venv-dist
PIP_INSTALL := -m pip install --disable-pip-version-check
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test fast lint docs bench peers sanity study kur figures cite dist floor clean

help:  ## List the targets. `make fast ARGS="-k gradcam"` passes arguments on.
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "%-8s%s\n", $$1, $$2 }'

demo: $(VENV)/demo.stamp  ## Train a small classifier, explain it and write pictures.
	$(VENV)/bin/python -m keras_explainable $(ARGS)

test: $(VENV)/test.stamp  ## Run all tests.
	$(VENV)/bin/python -m pytest $(WORKERS) $(ARGS)

fast: $(VENV)/test.stamp  ## Run the tests that take seconds.
	$(VENV)/bin/python -m pytest $(WORKERS) -m "not slow" $(ARGS)

lint: $(VENV)/test.stamp  ## Check the style and the types of the code.
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy

# Every warning is an error. Notebooks are run once, and again where they changed.
docs: $(VENV)/docs.stamp  ## Build the site in build/docs; `make docs NOTEBOOKS=1` runs the notebooks for it.
	NOTEBOOKS=$(NOTEBOOKS) $(VENV)/bin/python -m sphinx -W --keep-going -n -q -d build/doctrees docs build/docs $(ARGS)

bench: $(VENV)/demo.stamp  ## Measure time and memory; `ARGS=--write` fills docs/speed.md and docs/training.md.
	$(VENV)/bin/python benchmarks/run.py $(ARGS)
	if [ -e $(PEERS)/peers.stamp ]; then $(PEERS)/bin/python benchmarks/peers.py $(filter --write,$(ARGS)); fi
	$(VENV)/bin/python benchmarks/metrics.py
	$(VENV)/bin/python benchmarks/training.py $(filter --write,$(ARGS))
	$(VENV)/bin/python benchmarks/importing.py

peers: $(PEERS)/peers.stamp  ## Compare with other libraries; `ARGS=--write` fills docs/speed.md.
	$(PEERS)/bin/python benchmarks/peers.py $(ARGS)

sanity: $(VENV)/demo.stamp  ## Check that maps depend on the weights; fills docs/sanity.md.
	$(VENV)/bin/python benchmarks/sanity.py $(ARGS)

# The wheel is built from the sdist, not from the checkout.
dist: $(DIST)/dist.stamp  ## Build the sdist and the wheel in dist, and check what they say of themselves.
	rm -rf dist build/lib build/bdist.*
	$(DIST)/bin/python -m build --outdir dist .
	$(DIST)/bin/python -m twine check --strict dist/*

# The package is the wheel's, and the tests are those of the sdist, without the package beside them.
# Of versions that old, warnings are no errors: they deprecate one another.
floor: dist $(FLOOR)/floor.stamp  ## Run the fast tests of the wheel on the lowest versions supported (Python 3.11 or 3.12).
	$(FLOOR)/bin/python $(PIP_INSTALL) --quiet --no-deps --force-reinstall dist/*.whl
	rm -rf build/floor && mkdir -p build/floor/sdist
	tar -xzf dist/*.tar.gz --strip-components 1 --directory build/floor/sdist
	rm -r build/floor/sdist/keras_explainable build/floor/sdist/*.egg-info
	if [ -d ../shared ]; then ln -s "$$(realpath ../shared)" build/floor/shared; fi
	cd build/floor/sdist && $(abspath $(FLOOR))/bin/python -c "import importlib.util as u; print(u.find_spec('keras_explainable').origin)" | grep site-packages
	cd build/floor/sdist && $(abspath $(FLOOR))/bin/python -m pytest $(WORKERS) -m "not slow" -W default $(ARGS) --pyargs tests/ keras_explainable

study: $(VENV)/demo.stamp  ## Compare methods by metrics that mask inputs; fills docs/faithfulness.md.
	$(VENV)/bin/python benchmarks/faithfulness.py $(ARGS)

kur: $(VENV)/demo.stamp  ## Compare heads that use kernels sparingly with others; fills docs/kernel_usage.md.
	$(VENV)/bin/python benchmarks/kernel_usage.py $(ARGS)

figures: $(VENV)/demo.stamp  ## Draw the pictures of the README and of docs/methods.md.
	$(VENV)/bin/python benchmarks/figures.py $(ARGS)

cite:  ## Write the references of CITATION.cff, those of the methods in docs/references.md.
	$(PYTHON) benchmarks/citation.py

clean:  ## Delete the environments.
	rm -rf $(VENV) $(FLOOR) $(PEERS) $(DIST)

# The environment, with one of the extras of the package.
$(VENV)/%.stamp: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) --editable ".[$*]"
	touch $@

# The environment with other libraries, those of the extra `peers`.
$(PEERS)/peers.stamp: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python $(PIP_INSTALL) --editable ".[peers]"
	touch $@

# What makes a release.
$(DIST)/dist.stamp:
	$(PYTHON) -m venv $(DIST)
	$(DIST)/bin/python $(PIP_INSTALL) "build>=1.2" "twine>=6.1"
	touch $@

# The lowest versions are those that `setup.cfg` states.
$(FLOOR)/floor.stamp: setup.cfg pyproject.toml | dist
	$(PYTHON) -m venv $(FLOOR)
	sed -n 's/^ \{1,\}\([a-z0-9-]*\)\(\[[a-z]*\]\)\{0,1\} *>= *\([0-9.]*\).*/\1==\3/p' setup.cfg > $(FLOOR)/constraints.txt
	$(FLOOR)/bin/python $(PIP_INSTALL) --constraint $(FLOOR)/constraints.txt "$$(echo dist/*.whl)[test]"
	touch $@
