import keras
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from keras import layers
from models import make

import keras_trim


def read(path):
    return safetensors.numpy.load_file(path)


def test_weights_by_path(tmp_path):
    model, path = make("branches"), tmp_path / "model.safetensors"
    result = keras_trim.export(model, path, format="safetensors")
    tensors = read(path)
    assert result.num_bytes == path.stat().st_size
    assert sorted(tensors) == sorted(variable.path for variable in model.weights)
    for variable in model.weights:
        values = keras.ops.convert_to_numpy(variable.value)
        np.testing.assert_array_equal(tensors[variable.path], values)
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert metadata["model"] == model.name
    assert metadata["weights"] == "unchanged"


def test_a_path_that_occurs_twice(tmp_path):
    # Functional models do not add their name to the paths of their layers' weights.
    x = keras.Input((2,))
    inner = [keras.Model(i := keras.Input((2,)), layers.Dense(2, name="same")(i)) for _ in range(2)]
    model = keras.Model(x, [inner[0](x), inner[1](x)])
    paths = [variable.path for variable in model.weights]
    assert len(set(paths)) < len(paths)
    keras_trim.export(model, tmp_path / "model.safetensors", format="safetensors")
    tensors = read(tmp_path / "model.safetensors")
    for i, variable in enumerate(model.weights):
        name = variable.path if i < 2 else f"{variable.path}:1"
        np.testing.assert_array_equal(
            tensors[name], keras.ops.convert_to_numpy(variable.value), err_msg=name
        )


def test_float16(tmp_path):
    model = make("cnn")
    keras_trim.export(model, tmp_path / "m", format="safetensors", weights="float16")
    tensors = read(tmp_path / "m")
    for variable in model.weights:
        values = keras.ops.convert_to_numpy(variable.value).astype("float16")
        np.testing.assert_array_equal(tensors[variable.path], values)


@pytest.mark.parametrize(("dtype", "value"), [("float32", 1e6), ("float64", 1e300)])
def test_float16_does_not_overflow(dtype, value, tmp_path):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless told so")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, dtype=dtype)])
    model.layers[0].kernel.assign(np.full((4, 2), value))
    with pytest.raises(ValueError, match=r"too large for float16.*weight=.*kernel"):
        keras_trim.export(model, tmp_path / "m", format="safetensors", weights="float16")


def test_int8(tmp_path):
    model = make("mlp")
    model.layers[1].kernel.assign(np.zeros((128, 4)))
    keras_trim.export(model, tmp_path / "m", format="safetensors", weights="int8")
    tensors = read(tmp_path / "m")
    for variable in model.weights:
        values = keras.ops.convert_to_numpy(variable.value)
        if values.ndim < 2:
            np.testing.assert_array_equal(tensors[variable.path], values)
            continue
        integers, scale = tensors[variable.path], tensors[f"{variable.path}.scale"]
        assert integers.dtype == np.int8
        largest = np.abs(values).max(axis=0)
        np.testing.assert_allclose(scale, np.where(largest > 0, largest / 127, 1), rtol=1e-6)
        assert (np.abs(integers * scale - values) <= scale / 2 * 1.001).all()
        np.testing.assert_array_equal(integers == 0, np.abs(values) <= scale / 2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_int8_holds_finite_values_only(value, tmp_path):
    model = make("mlp")
    kernel = model.layers[1].kernel
    kernel.assign(np.full(kernel.shape, value))
    with pytest.raises(ValueError, match=r"NaN or infinity.*weight=.*kernel"):
        keras_trim.export(model, tmp_path / "m", format="safetensors", weights="int8")
    assert not list(tmp_path.iterdir())


def test_other_dtypes(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.Dropout(0.5)])
    keras_trim.export(model, tmp_path / "m", format="safetensors")
    with safetensors.safe_open(tmp_path / "m", "numpy") as file:
        kernel = file.get_slice(model.layers[0].kernel.path)
        assert kernel.get_dtype() == "BF16"
        assert kernel.get_shape() == [3, 2]


def test_subclassed_models(tmp_path):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Subclassed()
    with pytest.raises(ValueError, match="no weights yet"):
        keras_trim.export(model, tmp_path / "m", format="safetensors")
    model(np.ones((1, 3)))
    keras_trim.export(model, tmp_path / "m", format="safetensors")
    assert len(read(tmp_path / "m")) == 2


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="no names with points on PyTorch")
def test_names_of_scales_are_not_taken(tmp_path):
    class Clash(layers.Layer):
        def build(self, input_shape):
            self.table = self.add_weight(shape=(2, 2), name="table")
            self.scale = self.add_weight(shape=(2,), name="table.scale")

        def call(self, x):
            return x

    model = keras.Sequential([keras.Input((2,)), Clash()])
    with pytest.raises(ValueError, match="another one's scale.*weight=.*table.scale"):
        keras_trim.export(model, tmp_path / "m.safetensors", weights="int8")
    keras_trim.export(model, tmp_path / "m.safetensors")
    assert len(read(tmp_path / "m.safetensors")) == 2
