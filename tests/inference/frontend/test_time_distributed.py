"""`TimeDistributed`: the layer inside sees one step of all examples, never several steps."""

import keras
import pytest
from helpers import assert_same, kinds, numbers, randomize
from keras import layers, ops


def centered(x):
    return x - ops.mean(x, axis=0, keepdims=True)


class Keeping(layers.Layer):
    def compute_output_shape(self, shape):
        return shape


class Centered(Keeping):
    def call(self, x):
        return centered(x)


class Ranked(Keeping):
    """Of one number per example: the last axis is that of the batch."""

    def call(self, x):
        return x * ops.expand_dims(ops.softmax(x[:, 0]), -1)


class Scaled(Keeping):
    """Keeps examples apart, in operations that the engine has."""

    def call(self, x):
        return ops.tanh(x) * 2 + ops.softmax(x)


def of(function):
    return lambda: layers.Lambda(function, output_shape=lambda shape: shape)


def model_of(function):
    x = keras.Input((4,))
    return keras.Model(x, function(layers.Dense(4)(x)))


MIXES = {
    "mean": of(centered),
    "softmax": of(lambda x: ops.softmax(x, axis=0)),
    "flip": of(lambda x: ops.flip(x, axis=0)),
    "sort": of(lambda x: ops.sort(x, axis=0)),
    "einsum": of(lambda x: ops.einsum("ab,cb->ac", x, x) @ x),
    "layer": Centered,
    "vectors": Ranked,
    "activation": lambda: layers.Dense(4, activation=centered),
    "axis of an activation": lambda: layers.Dense(4, activation=lambda x: ops.softmax(x, axis=1)),
    "activation layer": lambda: layers.Dense(4, activation=layers.Softmax(axis=1)),
    "model": lambda: model_of(lambda x: ops.sum(x, axis=0, keepdims=True) + x),
    "axis of a layer": lambda: model_of(layers.Softmax(axis=0)),
}


@pytest.mark.parametrize("name", MIXES)
def test_steps_stay_apart(name):
    x = keras.Input((3, 4))
    model = randomize(keras.Model(x, layers.TimeDistributed(MIXES[name]())(x)), 0.0)
    assert_same(model, numbers(5, 3, 4), native=False)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Dense(3, activation="softmax"),
        lambda: layers.Dropout(0.5),
        lambda: layers.BatchNormalization(),
        lambda: layers.LayerNormalization(),
        lambda: model_of(lambda x: layers.ReLU()(x) * 3 + x),
        lambda: keras.Sequential([layers.Dense(5), layers.Softmax(), layers.Reshape((5, 1))]),
        Scaled,
    ],
)
def test_steps_of_layers_that_keep_examples_apart(layer):
    x = keras.Input((3, 4))
    model = keras.Model(x, layers.TimeDistributed(layer())(x))
    assert_same(randomize(model), numbers(5, 3, 4))


def test_pictures():
    x = keras.Input((3, 8, 8, 2))
    picture = keras.Input((8, 8, 2))
    y = layers.MaxPooling2D()(layers.Conv2D(4, 3, activation="relu")(picture))
    inner = keras.Model(picture, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))
    model = keras.Model(x, layers.LSTM(3)(layers.TimeDistributed(inner)(x)))
    assert "JoinTime" in kinds(assert_same(randomize(model), numbers(2, 3, 8, 8, 2)))


def test_layers_in_keras_that_keep_examples_apart():
    x = keras.Input((3, 6, 4))
    inner = layers.LSTM(3, activation=keras.activations.sparsemax)
    model = randomize(keras.Model(x, layers.TimeDistributed(inner)(x)))
    assert "JoinTime" in kinds(assert_same(model, numbers(2, 3, 6, 4), native=False))
