"""Trains every layer of Keras under pruning: which of its weights are pruned, and which are not."""

import functools
import inspect
import warnings

import keras
import numpy as np
import pytest
from conftest import values
from every_layer import (
    BACKEND,
    ELSEWHERE,
    WITH_WEIGHTS,
    WITHOUT_WEIGHTS,
    call,
    layers_with_weights,
    make_inputs,
)
from keras import layers, ops

import keras_trim


def test_every_layer_of_keras_is_listed_here():
    without = WITHOUT_WEIGHTS
    listed = {*WITH_WEIGHTS, *ELSEWHERE, *without}
    names = {}  # class -> its public names
    for name, value in vars(layers).items():
        if inspect.isclass(value) and issubclass(value, layers.Layer):
            names.setdefault(value, set()).add(name)
    new = [aliases for aliases in names.values() if not aliases & listed]
    assert not new, f"give these a row in WITH_WEIGHTS, or arguments among those without: {new}"
    for layer, aliases in names.items():
        if aliases & without and "build" in vars(layer):
            assert "add_weight" not in inspect.getsource(layer.build), f"{aliases} has weights"


@functools.cache
def trained():
    """A model of all layers side by side after two steps, and the list of them."""
    keras.utils.set_random_seed(0)
    inputs, outputs, built = make_inputs(), [], []
    for name, layer, kind, pruned in layers_with_weights():
        flat = layers.Flatten()(call(name, layer, inputs[kind]))
        outputs.append(layers.Lambda(ops.mean, arguments={"axis": 1, "keepdims": True})(flat))
        built.append((name, layer, pruned))
    model = keras.Model(inputs, layers.Add()(outputs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras's layers are left out by design, never in doubt
        keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.5, 0))
    # TensorFlow takes minutes to trace so many layers.
    model.compile("adam", "mse", run_eagerly=BACKEND == "tensorflow")
    rng = np.random.default_rng(0)
    x = {
        tensor.name: rng.standard_normal((4, *tensor.shape[1:])).astype("float32")
        for tensor in inputs.values()
    }
    x["ids"] = rng.integers(0, 10, (4, 6))  # 0 is masked
    x["sequence"][:, 4:] = 0.0
    before = {variable.path: values(variable).copy() for variable in model.trainable_variables}
    model.fit(
        x, np.ones((4, 1)), batch_size=2, verbose=0, callbacks=[keras_trim.UpdatePruningStep()]
    )
    return model, built, before


@pytest.mark.slow
def test_what_is_pruned_in_each_layer():
    _, built, _ = trained()
    wrong = {}
    for name, layer, expected in built:
        rows = keras_trim.sparsity_report(layer).rows if layer.variables else []
        pruned = [row for row in rows if row.reason is None]
        names = " ".join(row.path.rsplit("/", 1)[-1] for row in pruned)
        if BACKEND in ("jax", "torch") or name == "Layer":
            names = names.rstrip("_0123456789")
        if sorted(names.split()) != sorted(expected.split()):
            wrong[name] = names
        for row in pruned:
            if row.zeros < round(row.size * 0.5):
                wrong[name] = row
    assert not wrong


def test_what_is_left_out_keeps_its_weights_and_has_a_reason():
    model, _, before = trained()
    rows = [row for row in keras_trim.sparsity_report(model).rows if row.reason is not None]
    assert all(len(row.reason) > 10 for row in rows)
    trained_rows = [row for row in rows if row.path in before and (before[row.path] != 0).all()]
    assert len(trained_rows) > 10
    assert not [row for row in trained_rows if row.zeros]
