"""Arithmetic at its edges: cancellation, signed zeros, NaN, tiny numbers, integers."""

import keras
import numpy as np
import pytest
from helpers import assert_same, numbers
from keras import layers, ops

NAN, INFINITY = float("nan"), float("inf")


def function_of(function, size, dtype="float32"):
    x = keras.Input((size,), dtype=dtype)
    return keras.Model(x, function(x))


@pytest.fixture
def large_epsilon():
    before = keras.config.epsilon()
    keras.config.set_epsilon(1e-2)
    yield
    keras.config.set_epsilon(before)


MEANS = np.random.default_rng(0).uniform(-1000, 1000, 64).astype("float32")


@pytest.mark.parametrize(
    ("axis", "deviation"), [(-1, 0.0), (1, 0.0), (-1, 1e-3), (1, 1e-3), (None, 1e-3), (-1, 0.1)]
)
def test_normalization_of_numbers_close_together(axis, deviation):
    """The mean has to be subtracted before anything is rounded to its size."""
    mean = MEANS if axis else MEANS[0]
    layer = layers.Normalization(axis, mean=mean, variance=np.full_like(mean, deviation**2))
    shape = (3, 64) if axis == -1 else (64, 3)
    x = keras.Input(shape)
    mean = mean[:, None] if axis == 1 else mean
    data = (mean + deviation * numbers(2, *shape)).astype("float32")
    assert_same(keras.Model(x, layer(x)), data)


def test_normalization_of_constants_before_a_product():
    x = keras.Input((64,))
    y = layers.Normalization(mean=MEANS, variance=np.zeros(64))(x)
    model = keras.Model(x, layers.Dense(3)(y))
    assert_same(model, np.stack([MEANS, MEANS]))


def test_ordinary_normalization_is_one_step():
    x = keras.Input((3,))
    layer = layers.Normalization(mean=[100.0, 120.0, -3.0], variance=[3000.0, 60.0, 4.0])
    engine = assert_same(keras.Model(x, layer(x)), 100 * numbers(2, 3))
    assert [type(node.operation).__name__ for node in engine._graph.nodes] == ["ScaleChannels"]


@pytest.mark.parametrize("invert", [False, True])
def test_normalization_takes_the_epsilon_of_keras(large_epsilon, invert):
    layer = layers.Normalization(mean=[0.0, 1.0], variance=[1e-8, 1.0], invert=invert)
    assert_same(function_of(layer, 2), numbers(3, 2))


FACTORS = np.float32([-1, 2, 3, 4, 0.5, 6, 7])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.maximum(x, NAN),
        lambda x: ops.minimum(NAN, x),
        lambda x: x**0.5,
        lambda x: ops.power(x, -0.5),
        lambda x: 1 / x**0.5,
        lambda x: ops.power(x, -1.0),
        ops.reciprocal,
        lambda x: 1.0 / (-x),
        lambda x: -3.0 / (x * 2.0),
        lambda x: 1.0 / (x / 4.0),
        lambda x: 1.0 / (x * FACTORS),
        lambda x: 1.0 / (x / FACTORS),
        lambda x: 1.0 / layers.Average()([x, x]),
    ],
)
def test_signed_zeros_infinities_and_nan(function):
    data = np.float32([[0.0, -0.0, INFINITY, -INFINITY, NAN, 2.0, 0.25]])
    assert_same(function_of(function, 7), data)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("bounds", [(NAN, 1.0), (-1.0, NAN)])
def test_clipping_to_nan(bounds):
    assert_same(function_of(lambda x: ops.clip(x, *bounds), 4), numbers(2, 4), native=False)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="others take them as 0")
def test_divisors_whose_reciprocals_float32_cannot_hold():
    divisors = np.full(4, 1e-40, "float32")
    for function in (lambda x: x / 1e-40, lambda x: x / divisors):
        assert_same(function_of(function, 4), np.float32([[0.0, 1e-40, -2e-40, 1.0]]))


BYTES = np.uint8([[3, 200, 17, 0, 255, 90], [1, 2, 250, 130, 131, 7]])


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (layers.LayerNormalization, "uint8"),
        (lambda: layers.GroupNormalization(2), "uint8"),
        (layers.UnitNormalization, "uint8"),
        (lambda: ops.normalize, "int32"),
        (lambda: layers.PReLU(alpha_initializer="ones"), "uint8"),
        (lambda: lambda x: layers.Average()([x, x, x]), "uint8"),
        (lambda: lambda x: layers.Average()([x, x, x]), "int32"),
    ],
)
def test_integers_overflow_as_in_keras(make, dtype):
    data = BYTES if dtype == "uint8" else BYTES.astype("int32") * 8000000
    try:
        model = function_of(make(), 6, dtype)
        model.predict_on_batch(data)
    except Exception as error:
        pytest.skip(f"Keras cannot: {error!r:.100}")
    assert_same(model, data, native=False)


@pytest.mark.parametrize("compare", [ops.equal, ops.not_equal, ops.greater, ops.less_equal])
def test_comparisons_of_integers_with_floats(compare):
    for number in (16777216, 16777216.0):
        model = function_of(lambda x, number=number: compare(x, number), 3, "int32")
        is_exact = isinstance(number, int)
        assert_same(model, np.int32([[16777217, 16777216, 1]]), native=is_exact)


@pytest.mark.parametrize("function", [ops.any, ops.all])
@pytest.mark.parametrize("axis", [-1, 1, (1, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_any_and_all(function, axis, keepdims):
    x = keras.Input((3, 4))
    data = numbers(5, 3, 4)
    data[0] = 0.0
    data[1, :, 1:] = 0.0
    for values in (x, x > 0):
        model = keras.Model(x, function(values, axis=axis, keepdims=keepdims))
        assert_same(model, data)


@pytest.mark.parametrize("axis", [-1, 1, (1, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_variances(axis, keepdims):
    x = keras.Input((3, 4))
    axes = [axis] if isinstance(axis, int) else axis
    y = ops.stop_gradient(100.0 + x)
    outputs = [
        ops.var(y, axis=axis, keepdims=keepdims),
        ops.std(y, axis=axis, keepdims=keepdims),
        *ops.moments(x, axes, keepdims=keepdims),
    ]
    assert_same(keras.Model(x, outputs), numbers(5, 3, 4))


def test_arithmetic_of_one_channel_with_a_number():
    for function in (lambda x: 2.0**x, lambda x: 0.5 / x, lambda x: ops.divide(x, 1e38)):
        assert_same(function_of(function, 1), numbers(4, 1))
    with np.errstate(divide="ignore"):
        assert_same(function_of(lambda x: ops.divide(x, 0.0), 1), numbers(4, 1))
