"""Where Keras converts numbers to other dtypes: inputs of models, and casts."""

import keras
import numpy as np
import pytest
from helpers import assert_same, randomize
from keras import layers, ops

from keras_trim.inference import Engine


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


def assert_predicts(model, x):
    """Asserts that `predict` gives exactly what that of the model gives."""
    got, expected = Engine(model, 1).predict(x), model.predict(x, verbose=0)
    for a, b in zip(keras.tree.flatten(got), keras.tree.flatten(expected), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


TOO_LARGE = np.array([[300, -1, 200, 70000, 5]], "int64")


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "bool"])
@pytest.mark.parametrize("given", ["int64", "int32", "float32", "float64", "bool"])
def test_inputs_of_narrow_integers(dtype, given, tmp_path):
    x = keras.Input((5,), dtype=dtype)
    model = keras.Model(x, [ops.cast(x, "float32") * 2, x])
    data = TOO_LARGE.astype(given)
    if given.startswith("float"):
        data = np.concatenate([data, [[0.5, -0.5, 0.0, 127.9, 2.0]]]).astype(given)
    assert_predicts(model, data)
    engine = Engine(model, 1)
    engine.save(tmp_path / "model.engine")
    for a, b in zip(Engine.load(tmp_path / "model.engine")(data), engine(data), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
def test_indices_that_are_not_in_the_table(dtype, tmp_path):
    if dtype == "int64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no such integers")
    embedding = layers.Embedding(3, 2)
    inner = keras.Sequential([keras.Input((2,), dtype=dtype), embedding])
    outer = keras.Input((2,), dtype=dtype, name="tokens")
    for model in (inner, keras.Model(outer, inner(outer))):
        engine = Engine(model, 1)
        engine.save(tmp_path / "model.engine")
        for made in (engine, Engine.load(tmp_path / "model.engine", 1)):
            assert made.benchmark(seconds=0.0).seconds > 0  # with indices of its own choice
            for valid in [[[0, 2]], [[1, 1]]] + ([[[-3, -1]]] if dtype[0] != "u" else []):
                x = np.array(valid, dtype)
                np.testing.assert_array_equal(made(x), model.predict(x, verbose=0))
            for given in [[[0, 3]], [[200, 1]]] + ([[[-4, 0]]] if dtype[0] != "u" else []):
                x = np.array(given, dtype)
                if keras.backend.backend() == "jax":
                    np.testing.assert_array_equal(made(x), model.predict(x, verbose=0))
                    continue
                with pytest.raises(ValueError, match=r"table, which has 3 rows.*from -?\d"):
                    made(x)
                with pytest.raises(ValueError, match="which has 3 rows"):
                    made.predict(x)


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="it depends on the size of the tensor"
)
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "bool"])
def test_casts_of_what_is_too_large(dtype, tmp_path):
    x = keras.Input((9,))
    model = keras.Model(x, [ops.cast(x * 1.0, dtype), ops.cast(ops.cast(x, "int32"), dtype)])
    large = [300, -1, np.nan, 3e9, -3e9, np.inf, -np.inf, 70000.7, -1.9]
    data = np.array([large], "float32")
    assert_predicts(model, data)
    engine = Engine(model, 1)
    engine.save(tmp_path / "model.engine")
    for a, b in zip(Engine.load(tmp_path / "model.engine")(data), engine(data), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no such integers")
@pytest.mark.parametrize("number", [3e9, -3e9, np.nan])
def test_casts_to_more_than_32_bits(number):
    x = keras.Input((2,))
    engine = Engine(keras.Model(x, ops.cast(x, "int64")), 1)
    np.testing.assert_array_equal(engine.predict(np.array([[7.9, -2e9]])), [[7, -2000000000]])
    with pytest.raises(ValueError, match="integers of 32 bits"):
        engine.predict(np.array([[1.0, number]], "float32"))
    x = keras.Input((2,), dtype="int64")
    with pytest.raises(ValueError, match="integers of 32 bits"):
        Engine(keras.Model(x, x + 1), 1).predict(np.array([[1.0, number]], "float32"))
