"""Tiny backbones of KerasHub with random weights."""

import keras
import numpy as np
import pytest
from helpers import assert_same
from keras import layers

pytest.importorskip(
    "keras_hub",
    reason="KerasHub is installed without its dependencies: see `setup` in the Makefile",
)
from test_keras_hub import BACKBONES, batch


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_backbone(name):
    backbone = BACKBONES[name][0]()
    outputs = keras.tree.flatten(backbone.output)[0]
    x, _ = batch(keras.Model(backbone.input, outputs))
    if isinstance(x, dict):  # texts of different lengths
        x["padding_mask"] = np.arange(6) < np.array([6, 4, 1, 3])[:, None]
    assert_same(backbone, x, native=False)


class Difference(layers.Layer):
    """Runs in Keras; the names of arguments and outputs are not in alphabetical order."""

    def call(self, x, minus, by):
        return {"scaled": (x - minus) * by, "plain": keras.ops.sort(x - minus)}


def test_arguments_and_outputs_by_name():
    x, y, z = (keras.Input((4,)) for _ in range(3))
    found = Difference()(x, minus=y, by=z)
    model = keras.Model([x, y, z], [found["plain"], found["scaled"]])
    data = [np.random.default_rng(seed).standard_normal((2, 4), "float32") for seed in range(3)]
    assert_same(model, data, native=False)


def test_attention_by_name():
    x, y, z = (keras.Input((5, 8)) for _ in range(3))
    attention = layers.MultiHeadAttention(2, 4)
    model = keras.Model([x, y, z], attention(query=x, value=y, key=z, use_causal_mask=True))
    data = [np.random.default_rng(seed).standard_normal((2, 5, 8), "float32") for seed in range(3)]
    assert_same(model, data, native=False)
