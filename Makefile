# Needs Python 3.11 or later with venv, nothing else: every target makes .venv for itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKDIR ?= runs
DATASET ?= mnist

export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0

.PHONY: help snr snr-far snr-digits snr-phase data train evaluate reference \
	dequantize dequantize-gap dequantize-exact diffusion diffusion-ode masked dalle surgery compare \
	audit accelerator explore estimators advise reproduced lint fast test bench docs clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed, $(PYTHON) is `$(PYTHON) -V 2>&1`; run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.experiments: setup.py pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[experiments]'
	@touch $@

$(VENV)/.data: setup.py pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[experiments,data]'
	@touch $@ $(VENV)/.experiments

$(VENV)/.test: setup.py pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/.experiments $(VENV)/.data

$(VENV)/.benchmark: setup.py pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[benchmark]'
	@touch $@ $(VENV)/.experiments

$(VENV)/.docs: setup.py pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@ $(VENV)/.experiments

snr: $(VENV)/.experiments ## the headline figure: SNR of IWAE gradients, near toy
	$(BIN)/python -m experiments.snr --config=configs/snr_gaussian.py:near --workdir=$(WORKDIR)/snr_gaussian_near

snr-far: $(VENV)/.experiments ## the same far from the optimum: the collapse
	$(BIN)/python -m experiments.snr --config=configs/snr_gaussian.py:far --workdir=$(WORKDIR)/snr_gaussian_far

snr-digits: $(VENV)/.experiments ## the same on a VAE trained on digits
	$(BIN)/python -m experiments.snr --config=configs/snr_vae.py --workdir=$(WORKDIR)/snr_digits

snr-phase: $(VENV)/.experiments ## phase diagram of VR-IWAE over alpha, K and D
	$(BIN)/python -m experiments.snr --config=configs/snr_phase.py --workdir=$(WORKDIR)/snr_phase

estimators: $(VENV)/.experiments ## bias, variance and SNR of every estimator, summed exactly
	$(BIN)/python -m experiments.estimators --config=configs/estimators.py --workdir=$(WORKDIR)/estimators

advise: $(VENV)/.experiments ## which estimator at which K buys most per second, on six models
	$(BIN)/python -m experiments.advise --config=configs/advise.py --workdir=$(WORKDIR)/advise

data: $(VENV)/.data ## download one data set into data/: make data DATASET=mnist
	$(BIN)/python -m experiments.download --dataset=$(DATASET) --data_dir=data

train: $(VENV)/.experiments ## a VAE on digits, trained and evaluated: minutes
	$(BIN)/python -m experiments.train --config=configs/train_digits.py --workdir=$(WORKDIR)/train_digits

evaluate: $(VENV)/.experiments ## all bounds of that VAE, and log p(x) between AIS and reverse AIS
	$(BIN)/python -m experiments.evaluate --config=configs/evaluate.py --config.run=$(WORKDIR)/train_digits --workdir=$(WORKDIR)/train_digits/evaluation

reference: $(VENV)/.experiments ## the table of VAE, IWAE and DReG on MNIST (after make data): an hour
	$(BIN)/python -m experiments.reference --config=configs/reference_mnist.py:short --workdir=$(WORKDIR)/reference_mnist

reproduced: $(VENV)/.experiments ## published numbers, measured again (after make data): many hours, part by part
	$(BIN)/python -m experiments.reproduced --config=configs/reproduced.py --workdir=$(WORKDIR)/reproduced --config.data_dir=data

dequantize: $(VENV)/.experiments ## flows on digits: noise and couplings at matched parameters: half an hour
	$(BIN)/python -m experiments.dequantize --config=configs/dequantize_digits.py --workdir=$(WORKDIR)/dequantize_digits

dequantize-gap: $(VENV)/.experiments ## the same on densities with exact P(x): the true gaps: a quarter of an hour
	$(BIN)/python -m experiments.dequantize --config=configs/dequantize_digits.py:exact --workdir=$(WORKDIR)/dequantize_gap

dequantize-exact: $(VENV)/.experiments ## one and two pixels by quadrature, and what noise is for
	$(BIN)/python -m experiments.dequantize_exact --config=configs/dequantize_exact.py --workdir=$(WORKDIR)/dequantize_exact

diffusion: $(VENV)/.experiments ## a diffusion model on digits, its bound term by term: eight minutes
	$(BIN)/python -m experiments.diffusion --config=configs/diffusion_digits.py --workdir=$(WORKDIR)/diffusion_digits

diffusion-ode: $(VENV)/.experiments ## likelihood by the probability-flow ODE, and flow matching, on digits
	$(BIN)/python -m experiments.diffusion --config=configs/diffusion_ode.py --workdir=$(WORKDIR)/diffusion_ode

masked: $(VENV)/.experiments ## masked diffusion of digits, the ELBO in three forms, all orders of a crop
	$(BIN)/python -m experiments.masked --config=configs/masked_digits.py --workdir=$(WORKDIR)/masked_digits

dalle: $(VENV)/.experiments ## the joint bound of DALL-E on captioned digits, everything exact: fifteen minutes
	$(BIN)/python -m experiments.dalle --config=configs/dalle_digits.py --workdir=$(WORKDIR)/dalle_digits

surgery: $(VENV)/.experiments ## the ELBO of VAEs on digits taken apart: five minutes
	$(BIN)/python -m experiments.surgery --config=configs/surgery_digits.py --workdir=$(WORKDIR)/surgery_digits

compare: $(VENV)/.experiments ## every family of bounds on digits, one table and one page: twenty minutes
	$(BIN)/python -m experiments.compare --config=configs/compare_digits.py --workdir=$(WORKDIR)/compare_digits

audit: $(VENV)/.experiments ## is the number of that VAE (after make train) a bound? half a minute
	$(BIN)/python -m experiments.audit --config=configs/audit.py --config.run=$(WORKDIR)/train_digits --workdir=$(WORKDIR)/train_digits/audit

accelerator: $(VENV)/.experiments ## numerics, speed and bounds on a GPU or TPU (after make data): ten minutes
	$(BIN)/python -m experiments.accelerator --config=configs/accelerator.py --workdir=$(WORKDIR)/accelerator

explore: $(VENV)/.experiments ## docs/explore.html, for the lecture hall (after make snr and make snr-far): seconds
	$(BIN)/python -m experiments.explore --config=configs/explore.py --workdir=docs

lint: $(VENV)/.test ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# What is quick and breaks first: values, gradients, imports and signatures, commands in documents,
# and what settings, keys and changes of a config decide.
FAST := tests/bounds/test_values.py tests/bounds/test_elbo.py tests/bounds/test_vimco.py \
	tests/test_packaging.py tests/test_launch.py tests/test_docs.py \
	$(addprefix tests/experiments/runtime/,test_settings.py test_keys.py test_changes.py)

fast: $(VENV)/.test ## lint and the quick tests, those that failed first: while you work
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 -x --ff -m 'not slow' $(FAST)

test: lint ## lint and the whole test suite, once more with 64 bits: before you push
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m 'not slow'
	JAX_ENABLE_X64=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m 'x64 and not slow'

bench: $(VENV)/.benchmark ## speed and memory as ratios, side by side with peers
	$(BIN)/python -m benchmarks

docs: $(VENV)/.docs ## this documentation as pages, in build/docs, notebooks run: eight minutes
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky docs build/docs
	$(BIN)/python docs/_sphinx/links.py build/docs

clean: ## remove the environment, caches and results
	rm -rf $(VENV) .cache $(WORKDIR) build *.egg-info
