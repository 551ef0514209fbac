"""Numbers that are not ordinary: extremes of sparsity, NaN, infinities; and numbers of threads."""

import keras
import numpy as np
import pytest
from helpers import assert_close, assert_same, kinds, numbers, randomize
from keras import layers

from keras_trim.inference import Engine


def network():
    x = keras.Input((12, 12, 3))
    y = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    z = layers.DepthwiseConv2D(3, padding="same")(y)
    z = layers.Add()([layers.Conv2D(16, 1)(z), y])
    z = layers.Conv2D(9, 3)(layers.UpSampling2D(2)(z))
    z = layers.Concatenate()([layers.MaxPooling2D(2)(z), layers.AveragePooling2D(2)(z)])
    z = layers.Dense(7, activation="tanh")(z)
    return keras.Model(x, [layers.Dense(5)(layers.GlobalAveragePooling2D()(z)), z])


@pytest.mark.parametrize("sparsity", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("batch", [1, 4])
def test_threads_compute_what_one_does(sparsity, batch):
    model, x = randomize(network(), sparsity), numbers(batch, 12, 12, 3)
    expected = assert_same(model, x)(x)
    for num_threads in (2, 3, 4):
        for a, b in zip(Engine(model, num_threads=num_threads)(x), expected, strict=True):
            assert_close(a, b, 1e-5)


def test_model_without_a_weight_that_is_not_zero():
    model = network()
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    assert_same(model, numbers(2, 12, 12, 3))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Dense(5),
        lambda: layers.Dense(5, activation="relu"),
        lambda: layers.Conv2D(5, 3),
        lambda: layers.Conv2D(5, 1, activation="relu"),
        lambda: layers.Conv2DTranspose(5, 3),
        lambda: layers.DepthwiseConv2D(3),
        lambda: layers.DepthwiseConv2D(2, activation="relu6"),
        lambda: layers.Softmax(),
        lambda: layers.LayerNormalization(),
        lambda: layers.BatchNormalization(),
        lambda: layers.GlobalMaxPooling2D(),
        lambda: layers.AveragePooling2D(2),
    ],
)
def test_a_zero_weight_times_an_infinity_is_nan(make, value):
    """The zeros that are skipped otherwise."""
    layer = make()
    if keras.backend.backend() == "tensorflow" and (
        getattr(layer, "activation", None) in (keras.activations.relu, keras.activations.relu6)
        or isinstance(layer, layers.Softmax)
    ):
        pytest.skip("TensorFlow's fused ReLU and its softmax hide NaNs, if not called eagerly")
    x = keras.Input((5, 6, 4))
    model = randomize(keras.Model(x, make()(x)), 0.9)
    data = numbers(2, 5, 6, 4)
    data[0, 2, 3, 1] = value
    engine = Engine(model)
    with np.errstate(all="ignore"):
        expected = np.asarray(model.predict_on_batch(data))
        got = engine(data)
    assert_close(got, expected, 1e-4)
    data[0, 2, 3, 1] = 0
    assert_close(engine(data), np.asarray(model.predict_on_batch(data)), 1e-4)


def test_weights_that_are_not_finite():
    x = keras.Input((4,))
    model = randomize(keras.Model(x, layers.Dense(3)(x)))
    kernel = model.get_weights()[0]
    kernel[1, 2], kernel[2, 1] = np.inf, np.nan
    model.layers[-1].kernel.assign(kernel)
    assert_same(model, np.abs(numbers(2, 4)) + 1)


def test_an_overflowing_sum_of_inputs_is_no_infinity():
    x = keras.Input((4,))
    model = randomize(keras.Model(x, layers.Dense(3)(x)))
    assert_same(model, np.full((2, 4), 3e38, "float32") * np.float32([1, 1, 1, 0.1]))


@pytest.mark.parametrize("make", [np.asfortranarray, lambda x: np.frombuffer(x).reshape(2, 4)])
def test_inputs_that_float32_cannot_hold(make):
    x = keras.Input((4,))
    model = randomize(keras.Model(x, layers.Dense(3)(x)), 0.9)
    data = np.full((2, 4), 1.0)
    data[0, 1] = 1e39
    engine = Engine(model)
    for _ in range(2):  # the second time there is a program for finite inputs
        with np.errstate(all="ignore"):
            expected = np.asarray(model.predict_on_batch(data.astype("float32")))
        assert not np.isfinite(expected).all()
        assert_close(engine(make(data)), expected, 1e-4)
        engine(np.ones((2, 4), "float32"))


def test_division_by_zero():
    x = keras.Input((4,))
    model = keras.Model(x, [1 / x, x / (x - x), keras.ops.log(x), keras.ops.rsqrt(x)])
    engine = Engine(model)
    data = np.float32([[0.0, 1.0, 2.0, 0.5]])
    with np.errstate(all="ignore"):
        expected = model.predict_on_batch(data)
        got = engine(data)
    for a, b in zip(got, expected, strict=True):
        assert_close(a, np.asarray(b), 1e-4)
    assert "KerasCall" not in kinds(engine)


def test_no_examples():
    model = randomize(network())
    first, second = Engine(model)(np.zeros((0, 12, 12, 3), "float32"))
    assert first.shape == (0, 5)
    assert second.shape == (0, 5, 5, 7)
