# Every target sets up its own environment in .venv; it is refreshed when pyproject.toml changes.
# The development environment pins torch, so that runs are repeatable: make TORCH=torch==2.14.1 test
# The zoo has an environment of its own in .venv-newest: torchvision must be of the very build of torch.
PYTHON ?= python3
TORCH ?= torch==2.13.0
NEWEST ?= torch==2.14.1 torchvision==0.29.1
BIN := .venv/bin

.PHONY: help demo test zoo lint check bench scaling docs clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/'

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" -e ".[dev]"
	touch $@

.venv/docs-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@

demo: .venv/installed  ## train and measure a small net on scikit-learn's digits
	$(BIN)/python docs/examples/digits.py $(ARGS)

test: .venv/installed  ## run the tests
	$(BIN)/python -m pytest $(ARGS)

.venv-newest/installed: pyproject.toml
	test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check $(NEWEST) -e ".[dev,zoo]"
	touch $@

zoo: .venv-newest/installed  ## run every modular metric of torchmetrics, with the packages that they need
	METRIC_MIXIN_ZOO=all .venv-newest/bin/python -m pytest tests/test_zoo.py tests/test_zoo_ranks.py tests/test_wrappers.py tests/test_detection.py tests/test_examples.py::test_boxes_measures_as_pycocotools_does tests/test_docs.py::test_code_on_a_page_that_needs_packages $(ARGS)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## ruff, mypy, tests with warnings as errors, examples of the docs; CI runs it, and zoo

bench: .venv/installed  ## measure speed against the alternatives, as ratios
	$(BIN)/python -m tests.benchmarks

scaling: .venv/installed  ## measure the exchange on 2, 4 and 8 processes
	$(BIN)/python -m tests.benchmarks.scaling $(ARGS)

docs: .venv/docs-installed  ## build the documentation into site/
	$(BIN)/mkdocs build --strict --config-file .mkdocs.yml

clean:  ## remove what was built
	rm -rf .venv .venv-newest site dist
