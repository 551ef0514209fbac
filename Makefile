# Set-up, demo and tests. Each target makes the virtual environment it needs if it is missing.
#
#   make demo     the main job on real data, in under two minutes
#   make test     lint, then the test suite on each backend
#
# BACKEND=jax|torch|tensorflow   the demo's backend (default jax, the lightest install)
# DATA=path/to/mnist.npz         the demo on MNIST instead of scikit-learn's digits

PYTHON ?= python3
VENV ?= .venv
BACKEND ?= jax
BIN = $(VENV)/bin
# PyTorch's own index has the build without CUDA, several GB smaller; set TORCH to override.
TORCH ?= torch==2.13.0
# One of its dependencies brings the full tensorflow. What it needs here is in the extra `dev`.
KERAS_HUB ?= keras-hub==0.32.0
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
BACKENDS = jax tensorflow torch

.PHONY: demo test lint format setup setup-demo clean

demo: setup-demo
	KERAS_BACKEND=$(BACKEND) TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m keras_trim.demo $(if $(DATA),--data $(DATA))

test: setup lint
	@for backend in $(BACKENDS); do \
		echo "== $$backend"; \
		KERAS_BACKEND=$$backend TF_CPP_MIN_LOG_LEVEL=3 OMP_NUM_THREADS=1 \
			$(BIN)/python -m pytest --numprocesses auto || exit 1; \
	done

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	KERAS_BACKEND=jax $(BIN)/python tools/check_types.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Everything that tests, lint and benchmarks need: all three backends.
setup: $(VENV)/.installed-dev

# The package and one backend.
setup-demo: $(VENV)/.installed-demo-$(BACKEND)

$(VENV)/.installed-dev: pyproject.toml | $(VENV)
	$(PIP) "$(TORCH)"
	$(PIP) --editable ".[dev]"
	$(PIP) --no-deps "$(KERAS_HUB)"
	@touch $@ $(foreach backend,$(BACKENDS),$(VENV)/.installed-demo-$(backend))

$(VENV)/.installed-demo-%: pyproject.toml | $(VENV)
	$(if $(filter torch,$*),$(PIP) "$(TORCH)")
	$(PIP) --editable ".[demo,$*]"
	@touch $@

$(VENV):
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info demo_output
