# Set-up, demo and tests. Each target makes the virtual environment it needs if it is missing.
#
#   make demo     the main job on real data, in under two minutes
#   make test     lint, then the test suite on each backend, without the slow tests
#   make test-all lint, then the whole test suite on each backend, as CI does
#   make check    lint, then a quick part of the tests on one backend (CHECK_BACKEND, default torch)
#   make docs     the website, in build/site; a broken link or an undocumented name fails
#   make dist     wheel and sdist, each installed into an empty environment and tried out
#
# BACKEND=jax|torch|tensorflow   the demo's backend (default jax, the lightest install)
# DATA=path/to/mnist.npz         the demo on MNIST instead of scikit-learn's digits
# CONSTRAINTS=constraints.txt    the versions that the package was last tested with

PYTHON ?= python3
VENV ?= .venv
BACKEND ?= jax
BIN = $(VENV)/bin
# PyTorch's own index has the build without CUDA, several GB smaller; set TORCH to override.
TORCH ?= torch==2.13.0
# One of its dependencies brings the full tensorflow. What it needs here is in the extra `dev`.
KERAS_HUB ?= keras-hub==0.32.0
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	$(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
BACKENDS = jax tensorflow torch
CHECK_BACKEND ?= torch
# Whole files, because a process compiles what its tests share once. In the order of collection:
# tests that start processes come first, so that no core waits for one of them at the end.
SHARED = --numprocesses auto --dist loadfile --no-loadscope-reorder
# What breaks first when something is wrong, in about a minute.
CHECKS = tests/test_schedules.py tests/test_selection.py tests/test_patterns.py \
	tests/test_policies.py tests/test_optimizer.py tests/test_pruning.py tests/test_report.py \
	tests/test_architecture.py tests/test_documents.py tests/storage/test_arrays.py

.PHONY: demo test test-all check docs dist lint format setup setup-docs setup-demo clean

demo: setup-demo
	KERAS_BACKEND=$(BACKEND) TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m keras_trim.demo $(if $(DATA),--data $(DATA))

test: SELECTED = -m "not slow"
test test-all: setup lint
	@for backend in $(BACKENDS); do \
		echo "== $$backend"; \
		KERAS_BACKEND=$$backend TF_CPP_MIN_LOG_LEVEL=3 OMP_NUM_THREADS=1 \
			$(BIN)/python -m pytest $(SHARED) $(SELECTED) --durations 50 || exit 1; \
	done

check: setup lint
	KERAS_BACKEND=$(CHECK_BACKEND) TF_CPP_MIN_LOG_LEVEL=3 OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest $(SHARED) $(CHECKS)

# Runs the notebooks, too. The path is for their kernel, which starts in the notebook's folder.
docs: setup-docs
	PYTHONPATH=$(CURDIR) $(BIN)/python -m mkdocs build --strict

# In environments of its own: what is tried out is what a user installs.
dist: setup
	$(PIP) "build>=1.2" "twine>=6"
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tools/try_dist.py dist

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	KERAS_BACKEND=jax $(BIN)/python tools/check_types.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Everything that tests, lint and benchmarks need: all three backends.
setup: $(VENV)/.installed-dev

setup-docs: $(VENV)/.installed-docs

# The package and one backend.
setup-demo: $(VENV)/.installed-demo-$(BACKEND)

$(VENV)/.installed-dev: pyproject.toml | $(VENV)
	$(PIP) "$(TORCH)"
	$(PIP) --editable ".[dev]"
	$(PIP) --no-deps "$(KERAS_HUB)"
	@touch $@ $(foreach backend,$(BACKENDS),$(VENV)/.installed-demo-$(backend))

$(VENV)/.installed-docs: $(VENV)/.installed-dev
	$(PIP) --editable ".[docs]"
	@touch $@

$(VENV)/.installed-demo-%: pyproject.toml | $(VENV)
	$(if $(filter torch,$*),$(PIP) "$(TORCH)")
	$(PIP) --editable ".[demo,$(if $(filter tensorflow,$*),tensorflow-cpu,$*)]"
	@touch $@

$(VENV):
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info demo_output
