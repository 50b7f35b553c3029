# Every target sets up its own environment in .venv; it is refreshed when pyproject.toml changes.
# The development environment pins torch, so that runs are repeatable: make TORCH=torch==2.14.1 test
# The newest versions, and the zoo, have an environment of their own in .venv-newest: torchvision must be of the very build
# of torch. The lowest are those of .ci/lowest.txt, in .venv-lowest. Each on its Python, where .ci/find-python finds it.
PYTHON ?= python3
TORCH ?= torch==2.13.0
NEWEST ?= torch==2.14.1 torchvision==0.29.1 torchmetrics==1.9.0 lightning==2.6.6 pytorch-lightning==2.6.6
PYTHON_LOWEST ?= $(shell PYTHON=$(PYTHON) .ci/find-python 3.10)
PYTHON_NEWEST ?= $(shell PYTHON=$(PYTHON) .ci/find-python 3.13)
BIN := .venv/bin
INSTALL := -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test zoo versions lint check bench growth scaling imports docs pictures package clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/'

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) "$(TORCH)" -e ".[dev]"
	touch $@

.venv/docs-installed: .venv/installed
	$(BIN)/python $(INSTALL) -e ".[docs]"
	touch $@

demo: .venv/installed  ## train and measure a small net on scikit-learn's digits
	$(BIN)/python docs/examples/digits.py $(ARGS)

test: .venv/installed  ## run the tests
	$(BIN)/python -m pytest $(ARGS)

.venv-lowest/installed: pyproject.toml .ci/lowest.txt
	test -x .venv-lowest/bin/python || $(PYTHON_LOWEST) -m venv .venv-lowest
	.venv-lowest/bin/python $(INSTALL) --constraint .ci/lowest.txt -e ".[dev]" pyparsing
	touch $@

.venv-newest/installed: pyproject.toml
	test -x .venv-newest/bin/python || $(PYTHON_NEWEST) -m venv .venv-newest
	.venv-newest/bin/python $(INSTALL) $(NEWEST) -e ".[dev,zoo]"
	touch $@

zoo: .venv-newest/installed  ## run every modular metric of torchmetrics, with the packages that they need
	METRIC_MIXIN_ZOO=all .venv-newest/bin/python -m pytest tests/test_zoo.py tests/test_zoo_ranks.py tests/test_wrappers.py tests/test_detection.py tests/test_examples.py::test_boxes_measures_as_pycocotools_does tests/test_docs.py::test_code_on_a_page_that_needs_packages $(ARGS)

versions: .venv-lowest/installed .venv-newest/installed  ## run the tests with the lowest versions, then with the newest and the zoo
	.venv-lowest/bin/python -m pytest $(ARGS)
	METRIC_MIXIN_ZOO=all .venv-newest/bin/python -m pytest $(ARGS)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## ruff, mypy, tests with warnings as errors, examples of the docs; CI runs it, versions and package

bench: .venv/installed  ## measure speed against the alternatives and the floor; kept in docs/performance.md
	$(BIN)/python -m tests.benchmarks $(ARGS)

growth: .venv/installed  ## measure how cost grows with rows, classes, metrics and keys; kept there too
	$(BIN)/python -m tests.benchmarks.growth $(ARGS)

scaling: .venv/installed  ## measure the exchange on 2, 4 and 8 processes
	$(BIN)/python -m tests.benchmarks.scaling $(ARGS)

imports: .venv/installed  ## measure what `import metric_mixin` takes after `import lightning.pytorch`
	$(BIN)/python -m tests.benchmarks.imports

docs: .venv/docs-installed  ## build the documentation into site/
	$(BIN)/mkdocs build --strict --config-file .mkdocs.yml

pictures: .venv/installed  ## draw the pictures of the tutorial again, from its own blocks
	$(BIN)/python docs/pictures.py

.venv-package/installed: Makefile
	test -x .venv-package/bin/python || $(PYTHON) -m venv .venv-package
	.venv-package/bin/python $(INSTALL) build==1.6.1 twine==7.0.0
	touch $@

package: .venv-package/installed  ## build sdist and wheel into dist/, check them, run the README with the wheel alone
	rm -rf dist .venv-wheel
	.venv-package/bin/python -m build
	.venv-package/bin/twine check --strict dist/*
	$(PYTHON) .ci/check-package dist
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python $(INSTALL) "$(TORCH)" dist/*.whl scikit-learn
	.venv-wheel/bin/python -I .ci/try-readme README.md

clean:  ## remove what was built
	rm -rf .venv .venv-* site dist
