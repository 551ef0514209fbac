"""The engine beside `model.predict`, for each layer class that Keras has."""

import functools

import every_layer
import keras
import numpy as np
import pytest
from helpers import assert_close, randomize

from keras_trim.inference import Engine


def cases():
    """Dict: name -> (function that makes the layer, class, kind of its input)."""
    named = {}
    found = [(name, lambda x=x: x, kind) for name, x, kind, _ in every_layer.layers_with_weights()]
    for name, make, kind in [*found, *every_layer.layers_without_weights()]:
        number = sum(case[1] == name for case in named.values())
        named[f"{name} {number}" if number else name] = make, name, kind
    return named


CASES = cases()

# Of Keras's `MixUp`, on JAX.
pytestmark = pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64")


def numbers_of(kind, shape, rng):
    if kind in ("id", "ids"):
        return rng.integers(0, 10, (3, *shape)).astype("int32")
    x = rng.standard_normal((3, *shape)).astype("float32")
    if kind == "sequence":
        x[:, 4:] = 0  # which masks leave out
    return 255 * np.abs(x) / np.abs(x).max() if kind == "picture" else x


@functools.cache
def predicted():
    """Models and data by name, what Keras returns for all of them in one run, and what it refuses.

    One run, as JAX and TensorFlow compile each model.
    """
    inputs, outputs, refused = {}, {}, {}
    for name, (make, layer, kind) in CASES.items():
        if kind == "text":
            continue  # see below
        x = every_layer.make_input(kind)
        try:
            y = every_layer.call(layer, make(), x)
            assert y is not x, "the layer gives its input itself, which makes a graph a circle"
            inputs[name], outputs[name] = x, y
        except Exception as error:
            refused[name] = error
    whole = randomize(keras.Model(list(inputs.values()), outputs))
    models = {name: keras.Model(inputs[name], y) for name, y in outputs.items()}
    rng = np.random.default_rng(0)
    data = {name: numbers_of(CASES[name][2], x.shape[1:], rng) for name, x in inputs.items()}
    return models, data, whole.predict_on_batch(list(data.values())), refused


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[2] != "text"])
def test_layer(name):
    models, data, expected, refused = predicted()
    if name in refused:
        pytest.skip(f"Keras cannot build it on {every_layer.BACKEND}: {refused[name]!r:.150}")
    engine = Engine(models[name], num_threads=1)
    if name == "RandomCrop":  # declares the shape of what it crops, which only training does
        with pytest.raises(ValueError, match="gives an output of another shape than"):
            engine(data[name])
        return
    got = keras.tree.flatten(engine(data[name]))
    for a, b in zip(got, keras.tree.flatten(expected[name]), strict=True):
        b = np.asarray(b)
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert_close(np.asarray(a, "float64"), np.asarray(b, "float64"), 1e-4)
