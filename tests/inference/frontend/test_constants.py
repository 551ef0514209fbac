"""Arrays among the inputs of a layer: constants, weights, masks."""

import keras
import numpy as np
import pytest
from helpers import assert_same, numbers, randomize
from keras import layers, ops


def of_constant(call, batch=None):
    x = keras.Input(batch_shape=(batch, 6, 4))
    return randomize(keras.Model(x, call(x)), 0.0)


@pytest.mark.parametrize(
    "make",
    [
        layers.Add,
        layers.Subtract,
        layers.Multiply,
        layers.Average,
        layers.Maximum,
        layers.Minimum,
        layers.Concatenate,
        lambda: layers.Dot((2, 2)),
    ],
)
def test_a_constant_among_the_inputs(make):
    constant = numbers(2, 6, 4, seed=2)
    model = of_constant(lambda x: make()([x, constant]), batch=2)
    in_engine = (layers.Add, layers.Subtract, layers.Multiply, layers.Average)
    in_engine += (layers.Maximum, layers.Minimum)
    assert_same(model, numbers(2, 6, 4), native=make in in_engine)


def test_attention_to_a_constant():
    keys = numbers(2, 5, 4, seed=2)
    model = of_constant(lambda x: layers.MultiHeadAttention(2, 3)(x, keys))
    assert_same(model, numbers(2, 6, 4), native=False)


class Pool(layers.Layer):
    """Attention of a learned query, which is repeated for each example."""

    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 3)

    def build(self, shape):
        self.query = self.add_weight(shape=(1, 3, shape[-1]))
        self.attention.build((None, 3, shape[-1]), shape)

    def call(self, x):
        return self.attention(self.query, x)

    def compute_output_shape(self, shape):
        return shape[0], 3, shape[-1]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="Keras repeats it on PyTorch only")
@pytest.mark.parametrize("batch", [None, 2])
def test_a_learned_query(batch):
    model = of_constant(lambda x: layers.Dense(2)(Pool()(x)), batch)
    assert_same(model, numbers(2, 6, 4), native=False)


SEEN = np.array([[1, 1, 0, 0, 1, 1], [0, 1, 1, 1, 0, 1]], bool)


@pytest.mark.parametrize("convert", [np.asarray, ops.convert_to_tensor])
@pytest.mark.parametrize(
    "call",
    [
        lambda x, mask: layers.Attention()([x, x], mask=[mask, mask]),
        lambda x, mask: layers.BatchNormalization()(x, mask=mask),
    ],
)
def test_constant_masks(call, convert):
    def masked(x):
        y = call(x, convert(SEEN))
        return layers.GlobalAveragePooling1D()(layers.LSTM(3, return_sequences=True)(y))

    assert_same(of_constant(masked, batch=2), numbers(2, 6, 4), native=False)
