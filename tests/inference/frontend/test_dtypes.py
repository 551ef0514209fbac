"""Where Keras converts numbers to other dtypes: inputs of models, and casts."""

import keras
import numpy as np
import pytest
from helpers import assert_same, numbers, randomize
from keras import layers, ops


def halves(*shape):
    """Numbers of which an integer input drops a part."""
    return np.linspace(-3.7, 4.9, int(np.prod(shape)), dtype="float32").reshape(shape)


def functional(dtype):
    x = keras.Input((5,), dtype=dtype)
    return keras.Model(x, ops.cast(x, "float32") * 2)


def sequential(dtype):
    return keras.Sequential([keras.Input((5,), dtype=dtype), layers.Rescaling(2.0)])


class Holder(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return self.inner(x) + 1


@pytest.mark.parametrize("inner", [functional, sequential])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_nested_models_cast_what_they_are_given(inner, dtype):
    x, data = keras.Input((5,)), np.abs(halves(3, 5))
    assert_same(keras.Model(x, inner(dtype)(x)), data)
    model = Holder(inner(dtype))
    model(data)
    assert_same(model, data)


def test_nested_models_of_integers_that_get_other_integers():
    x = keras.Input((5,), dtype="int32")
    model = keras.Model(x, functional("uint8")(x))
    assert_same(model, np.array([[300, -1, 0, 255, 256]], "int32"))


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_nested_models_mask_what_they_cast():
    tokens = keras.Input((5,), dtype="int32")
    y = layers.Embedding(9, 4, mask_zero=True)(tokens)
    x = keras.Input((5,))
    inner = keras.Model(tokens, layers.LSTM(3)(y))
    model = randomize(keras.Model(x, inner(x)), 0.0)
    assert_same(model, np.array([[1.2, 2.9, 0.4, 0.9, 0.0], [3, 0.5, 4.1, 0.2, 5]], "float32"))
    # A mask that comes with the tensor outlives the cast.
    z = keras.Input((5, 4), dtype="int32")
    reader = keras.Model(z, layers.GlobalAveragePooling1D()(layers.Dense(3)(z)))
    model = keras.Model(x, reader(layers.Embedding(9, 4, mask_zero=True)(x) * 5))
    assert_same(randomize(model, 0.0), np.array([[1, 2, 0, 0, 5]], "float32"), native=False)
