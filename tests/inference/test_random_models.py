"""Random graphs: of image layers, in layouts and shapes, and of all that users build."""

import os
import random

import keras
import numpy as np
import pytest
import random_models
from helpers import assert_same, numbers, randomize
from hypothesis import HealthCheck, given, settings
from keras import layers, ops

from keras_trim.inference import Engine

ACTIVATIONS = [None, "relu", "relu6", "tanh", "silu", "gelu", "softplus", "softmax", layers.ReLU(1)]
FORMATS = ["channels_last"] * 3
if keras.backend.backend() != "tensorflow":  # which has no such convolutions on a CPU
    FORMATS.append("channels_first")


def convolution(choose, x, format):
    kind = choose(
        [layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Conv2DTranspose]
    )
    settings = {
        "kernel_size": choose([1, 2, 3, 5]),
        "padding": "same",
        "strides": choose([1, 1, 2, 3]),
        "activation": choose(ACTIVATIONS),
        "data_format": format,
    }
    if kind is not layers.DepthwiseConv2D:
        settings["filters"] = choose([1, 3, 8, 16])
    return kind(**settings)(x)


def pooling(choose, x, format):
    kind = choose([layers.MaxPooling2D, layers.AveragePooling2D])
    return kind(choose([1, 2, 3]), choose([1, 2, 3]), "same", data_format=format)(x)


def normalization(choose, x, format):
    return choose(
        [
            layers.BatchNormalization(axis=choose([1, 2, 3])),
            layers.LayerNormalization(epsilon=0.1),
            layers.GroupNormalization(1, epsilon=0.1),
        ]
    )(x)


def merge(choose, x, format):
    y = choose([x * 2, ops.tanh(x), layers.Dense(x.shape[-1])(x)])
    kind = choose([layers.Add, layers.Multiply, layers.Maximum, layers.Concatenate])
    return kind()([x, y])


def rearrangement(choose, x, format):
    return choose(
        [
            lambda: layers.Permute(choose([(2, 1, 3), (3, 1, 2), (1, 3, 2)]))(x),
            lambda: layers.ZeroPadding2D(((1, 0), (0, 2)), data_format=format)(x),
            lambda: layers.UpSampling2D((1, 2), data_format=format)(x),
            lambda: x[:, ::2],
            lambda: ops.where(x > 0, x, 0.1 * x),
            lambda: ops.mean(x, -1, keepdims=True) * x,
        ]
    )()


STEPS = [convolution, convolution, pooling, normalization, merge, rearrangement]


def make_model(seed):
    choose = random.Random(seed).choice
    x = inputs = keras.Input((choose([1, 5, 8, 17]), choose([2, 7, 16]), choose([1, 3, 8])))
    for _ in range(5):
        y = choose(STEPS)(choose, x, choose(FORMATS))
        x = y if max(y.shape[1:]) < 60 else x
    outputs = [x, layers.Dense(3)(layers.Flatten(data_format=choose(FORMATS))(x))]
    return randomize(keras.Model(inputs, outputs), choose([0, 0.5, 0.9, 1]), seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_random_model(seed):
    model = make_model(seed)
    data = numbers(random.Random(seed).choice([1, 2, 5]), *model.input_shape[1:], seed=seed)
    assert_same(model, data, num_threads=1 + seed % 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*destroy the mask")  # which some of these models do
@pytest.mark.filterwarnings("ignore:(?s).*softmax over axis")  # of size 1, as some of them have
@given(random_models.models())
@settings(
    max_examples=int(os.environ.get("KERAS_TRIM_EXAMPLES", 50)),
    deadline=None,
    derandomize="KERAS_TRIM_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
def test_any_model(model):
    """As `benchmarks/random_models.py`, which runs a thousand of them."""
    before = [np.array(ops.convert_to_numpy(variable)) for variable in model.variables]
    data = random_models.make_data(model, 3, seed=1)
    expected = keras.tree.flatten(model.predict_on_batch(data))
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    engine = Engine(model, 1)
    engine._tuner.seconds = 1e-4
    for a, b in zip(keras.tree.flatten(engine(data)), expected, strict=True):
        tolerance = 2e-3 * max(np.abs(b).max(initial=0), 1e-3)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
