"""What the tests of the engine share: models with zeros in them, and the comparison with Keras."""

import os

import keras
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from keras_trim.inference import Engine, planner

planner.SMALL_SECONDS = 0  # the small networks of the tests run on as many threads as they ask for

# More examples than the suite has time for: KERAS_TRIM_EXAMPLES=200 pytest tests/inference
# Backends differ in how a model is read, hardly in what the engine then computes.
_EXAMPLES = 12 if keras.backend.backend() == "jax" else 5
examples = settings(
    max_examples=int(os.environ.get("KERAS_TRIM_EXAMPLES", _EXAMPLES)),
    deadline=None,
    derandomize="KERAS_TRIM_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)

sparsities = st.sampled_from([0.0, 0.5, 0.9, 0.97, 1.0])
batches = st.sampled_from([1, 2, 3, 5, 33])


def randomize(model, sparsity=0.5, seed=0):
    """Random weights with zeros; statistics of batch normalization are random as well."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed" in variable.path or not variable.dtype.startswith(("float", "bfloat")):
            continue
        value = rng.standard_normal(variable.shape).astype("float32")
        if "variance" in variable.path:
            value = np.abs(value) + 0.5
        elif len(variable.shape) > 1:
            value /= np.sqrt(max(np.prod(variable.shape[:-1]), 1))
            value[rng.random(value.shape) < sparsity] = 0
            if sparsity and value.shape[-1] > 1:
                value[..., 0] = 0  # an output without weights
        variable.assign(value)
    return model


def numbers(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def kinds(engine):
    """What the engine runs: names of operations, in order."""
    return [type(node.operation).__name__ for node in engine._graph.nodes]


def assert_survives_a_file(engine, data, folder):
    """Asserts that an engine saved and loaded computes the same, if perhaps by other kernels."""
    engine.save(folder / "model.engine")
    loaded = Engine.load(folder / "model.engine")
    np.testing.assert_allclose(loaded(data), engine(data), rtol=1e-5, atol=1e-6)


def assert_same(model, x, tolerance=1e-4, num_threads=1, native=True):
    """Asserts that the engine computes what Keras does; returns the engine.

    Args:
        native: Boolean. Whether no layer may run in Keras.
    """
    engine = Engine(model, num_threads=num_threads)
    got, expected = engine(x), model.predict_on_batch(x)
    keras.tree.assert_same_structure(got, expected)
    for a, b in zip(keras.tree.flatten(got), keras.tree.flatten(expected), strict=True):
        b = np.asarray(b)
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert_close(np.asarray(a, "float64"), np.asarray(b, "float64"), tolerance)
    if native:
        assert "KerasCall" not in kinds(engine)
    return engine


def assert_close(a, b, tolerance):
    """Equal relative to the largest number, NaN and infinities in the same places."""
    finite = np.isfinite(b)
    np.testing.assert_array_equal(np.where(finite, 0, a), np.where(finite, 0, b))
    largest = np.abs(b[finite]).max(initial=1e-6)
    np.testing.assert_allclose(a[finite], b[finite], rtol=0, atol=tolerance * largest)


def of_layer(layer, shape, sparsity=0.5, dtype=None):
    """A model of one layer, with random weights."""
    x = keras.Input(shape, dtype=dtype)
    return randomize(keras.Model(x, layer(x)), sparsity)
