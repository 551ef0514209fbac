"""Steps that a mask hides do not count, in whatever way the mask reaches a layer."""

import keras
import numpy as np
import pytest
from conftest import values
from keras import layers, ops

import keras_trim

STEPS, PADDED = 5, 9


def embedded():
    words = keras.Input((None,), dtype="int32")
    return words, layers.Embedding(20, 8, mask_zero=True)(words)


def dense():
    words, x = embedded()
    x = layers.Dense(8, activation="relu")(x)
    x = layers.BatchNormalization()(layers.Dense(8)(x))
    return keras.Model(words, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def attention():
    """The projections in an attention take the mask of the layer around them."""
    words, x = embedded()
    x = layers.MultiHeadAttention(2, 4)(x, x)
    return keras.Model(words, layers.LSTM(4)(x))


class Block(layers.Layer):
    """A layer that is told of padding as those of KerasHub are, in an argument."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(8, activation="relu")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, padding_mask=None):
        return self.dense(x)

    def compute_output_shape(self, shape):
        return shape


def argument():
    words = keras.Input((None,), dtype="int32")
    mask = words != 0
    x = Block()(layers.Embedding(20, 8)(words), padding_mask=mask)
    x = ops.sum(x * ops.cast(mask[..., None], "float32"), axis=1)
    return keras.Model(words, layers.Dense(3)(x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.words = layers.Embedding(20, 8, mask_zero=True)
        self.dense, self.gru = layers.Dense(8), layers.GRU(4)

    def call(self, x):
        return self.gru(self.dense(self.words(x)))


def subclassed():
    model = Subclassed()
    model(np.ones((2, 3), "int32"))
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*pruned by magnitude")
@pytest.mark.parametrize("make", [dense, attention, argument, subclassed])
def test_padding_changes_nothing(make, rng):
    x = rng.integers(1, 20, (64, STEPS))
    longer = np.zeros((64, PADDED), "int32")
    longer[:, :STEPS] = x
    models = [make(), make()]
    models[1].set_weights(models[0].get_weights())
    for model, data in zip(models, (x.astype("int32"), longer), strict=True):
        keras_trim.prune(model, distribution={"kernel$": 0.5}, calibration_data=data)
    for a, b in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(values(a), values(b), atol=1e-4, err_msg=a.path)


@pytest.mark.filterwarnings("ignore:.*pruned by magnitude")
def test_padding_of_keys_is_not_that_of_queries(rng):
    def made():
        (asked, x), (told, y) = embedded(), embedded()
        x = layers.MultiHeadAttention(2, 4)(x, y)
        return keras.Model([asked, told], layers.LSTM(4)(x))

    x, y = (rng.integers(1, 20, (64, steps)).astype("int32") for steps in (STEPS, STEPS + 2))
    longer = [np.pad(data, ((0, 0), (0, PADDED - data.shape[1]))) for data in (x, y)]
    models = [made(), made()]
    models[1].set_weights(models[0].get_weights())
    for model, data in zip(models, ([x, y], longer), strict=True):
        keras_trim.prune(model, distribution={"kernel$": 0.5}, calibration_data=data)
    for a, b in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(values(a), values(b), atol=1e-4, err_msg=a.path)


@pytest.mark.filterwarnings("ignore:.*does not support masking")
def test_windows_of_padding_alone_do_not_count(rng):
    x = rng.standard_normal((16, 6, 3)).astype("float32")
    x[:, 4:] = -1.0
    model = keras.Sequential(
        [keras.Input((6, 3)), layers.Masking(-1.0), layers.Conv1D(4, 2, use_bias=False)]
    )
    kernel = values(model.layers[-1].kernel)
    keras_trim.prune(model, 0.5, calibration_data=x, method="wanda")
    masked = np.where((x == -1).all(-1, keepdims=True), 0.0, x)  # what `Masking` gives
    windows = np.stack([masked[:, i : i + 2] for i in range(4)], 1).reshape(-1, 6)
    scores = kernel.reshape(6, 4) ** 2 * (windows**2).sum(0)[:, None]
    kept = np.argsort(np.argsort(-scores, axis=0), axis=0) < 3
    np.testing.assert_array_equal(values(model.layers[-1].kernel).reshape(6, 4) != 0, kept)


def test_nothing_but_padding_is_an_error():
    model = dense()
    before = model.get_weights()
    with pytest.raises(ValueError, match="`calibration_data` is nothing but padding.*Received"):
        keras_trim.prune(
            model, distribution={"kernel$": 0.5}, calibration_data=np.zeros((4, 6), "int32")
        )
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
