"""Numbers that are not ordinary: extremes of sparsity, NaN, infinities; and numbers of threads."""

import ctypes
import mmap
import sys

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


@pytest.mark.parametrize("batch", [2, 6])
@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_a_zero_weight_of_a_recurrent_layer_times_an_infinity_is_nan(layer, batch):
    x = keras.Input((3, 4))
    model = randomize(keras.Model(x, layer(5, return_sequences=True)(x)), 0.7)
    data = numbers(batch, 3, 4)
    data[0, 1, 2], data[1, 0, 0] = np.inf, -np.inf
    assert_same(model, data)


@pytest.mark.parametrize("batch", [2, 6])
def test_an_infinite_state_times_a_zero_weight_is_nan(batch):
    x = keras.Input((3, 4))
    model = keras.Model(x, layers.SimpleRNN(4, activation="relu", return_sequences=True)(x))
    model.set_weights([np.eye(4), np.eye(4), np.zeros(4)])
    data = np.ones((batch, 3, 4), "float32")
    data[0, 1] = np.inf
    assert_same(model, data)


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


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("size", [1, 15, 17, 100])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen_wherever_it_is(size, value, num_threads):
    x = keras.Input((size,))
    model = keras.Model(x, layers.Dense(1)(x))
    model.layers[-1].kernel.assign(np.zeros((size, 1)))  # times infinity it is NaN
    engine = Engine(model, num_threads=num_threads)
    data = numbers(1, size)
    for place in range(size):
        assert engine(data) == 0
        changed = data.copy()
        changed[0, place] = value
        assert np.isnan(engine(changed))


def _at_the_end_of_its_page(x):
    """A copy behind which no memory may be read."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    copy = np.frombuffer(memory, np.uint8)[page - x.nbytes : page].view(x.dtype).reshape(x.shape)
    copy[...] = x
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    assert libc.mprotect(copy.ctypes.data + x.nbytes, page, 0) == 0, ctypes.get_errno()
    return copy


def _unaligned(x):
    return np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape)


LYING = {
    "in columns": np.asfortranarray,
    "in every other place": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "backwards": lambda x: x[:, ::-1].copy()[:, ::-1],
    "between numbers": _unaligned,
    "as big ends": lambda x: x.astype(">f4"),
    "as float64": lambda x: x.astype("float64"),
    "as a subclass": lambda x: x.view(np.ma.MaskedArray),
    "as a list": lambda x: x.tolist(),
    "at the end of a page": _at_the_end_of_its_page,
}


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("how", LYING)
def test_however_inputs_lie(how, num_threads):
    if how == "at the end of a page" and sys.platform == "win32":
        pytest.skip("Windows protects pages otherwise")
    x = keras.Input((23, 3))
    model = randomize(keras.Model(x, layers.Conv1D(4, 3)(x)), 0.5)
    data = numbers(2, 23, 3)
    engine = Engine(model, num_threads=num_threads)
    expected, given = engine(data), LYING[how](data)
    for _ in range(3):
        np.testing.assert_array_equal(engine(given), expected)
        np.testing.assert_array_equal(engine(data), expected)


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
