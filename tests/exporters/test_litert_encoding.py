"""Which zeros LiteRT's file omits, and which combinations are rejected.

The converter is the same under every backend, so it runs in this process.
"""

import warnings

import keras
import numpy as np
import pytest
from keras import layers
from models import assert_close, inputs_of, make, outputs_of, randomize, run_litert

import keras_trim

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the converter runs under TensorFlow"
)


def export(model, folder, weights=None):
    path = folder / "model.tflite"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        result = keras_trim.export(model, path, weights=weights)
    inputs = inputs_of(model, result.batch_size or 2)
    tolerance = {None: 1e-5, "float16": 5e-3, "int8": 0.1}[weights]
    assert_close(run_litert(path, inputs), outputs_of(model, inputs), tolerance)
    texts = [str(w.message) for w in caught if str(path) in str(w.message)]
    return result, texts


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        {"sparsity": 0.5},
        {"sparsity": 0.8},
        {"sparsity_m_by_n": (2, 4), "sparsity": 0.5},
        {"block_size": (4, 1)},
        {"block_size": (4, 4)},
        {"block_size": (1, 4)},
    ],
    ids=str,
)
def test_patterns(pattern, tmp_path):
    dense, _ = export(make("mlp", sparsity=0.0), tmp_path)
    sparse, texts = export(make("mlp", **pattern), tmp_path)
    assert not dense.is_sparse
    assert sparse.is_sparse
    assert not texts
    most = 0.85 if pattern.get("sparsity") == 0.5 else 0.45  # a value and its index, 4 + 1 bytes
    assert sparse.num_bytes < most * dense.num_bytes


def test_blocks_in_float16_are_stored_densely(tmp_path):
    result, texts = export(make("mlp", block_size=(4, 1)), tmp_path, "float16")
    assert not result.is_sparse
    assert len(texts) == 1
    assert "stored densely" in texts[0]
    assert "blocks of 4 inputs" in texts[0]


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_int8_is_stored_densely(name, tmp_path):
    result, texts = export(make(name), tmp_path, "int8")
    assert not result.is_sparse
    assert ["int8 weights are stored densely" in text for text in texts] == [True]
    _, texts = export(make(name, sparsity=0.0), tmp_path, "int8")
    assert not texts


def test_convolutions_that_stay_in_float32(tmp_path):
    model = keras.Sequential([keras.Input((3, 3, 3, 8)), layers.Conv3D(16, 3, name="volume")])
    result, texts = export(model, tmp_path, "int8")
    assert ["weights of 'volume' stay in float32" in text for text in texts] == [True]
    assert result.num_bytes > 4 * model.count_params()


def test_a_crash_of_the_calibrator_is_an_error(tmp_path):
    model = keras.Sequential([keras.Input((5, 32)), layers.LSTM(32)])
    message = "cannot measure the activations.*recurrent layers.*Received: model=sequential"
    with pytest.raises(ValueError, match=message):
        keras_trim.export(
            model, tmp_path / "model.tflite", representative_data=np.ones((3, 5, 32), "float32")
        )
    assert list(tmp_path.iterdir()) == []


def test_names_of_inputs_that_are_no_arguments(tmp_path):
    inputs = [keras.Input((4,), name=name) for name in ("a-b", "a_b", "self", "class")]
    model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(inputs)))
    with pytest.warns(UserWarning, match="names that LiteRT accepts: 'a_b' is 'a_b_2', 'self'"):
        keras_trim.export(model, tmp_path / "model.tflite")


def test_few_zeros_are_stored_densely(tmp_path):
    result, texts = export(make("mlp", sparsity=0.32), tmp_path, "float16")
    assert not result.is_sparse  # 3 bytes for a value and its index, 2 for a value
    assert not texts


def test_more_than_ten_outputs_keep_their_order(tmp_path):
    x = keras.Input((4,))
    model = keras.Model(x, [layers.Dense(2)(x) for _ in range(12)])
    randomize(model)
    keras_trim.export(model, tmp_path / "model.tflite")


def test_integer_inputs(tmp_path):
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), layers.Embedding(9, 4), layers.Flatten()]
    )
    keras_trim.export(model, tmp_path / "model.tflite")
    x = np.array([[0, 8, 3, 3, 1]], "int32")
    assert_close(run_litert(tmp_path / "model.tflite", [x]), outputs_of(model, [x]))


def test_what_has_no_litert_operation_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((8, 8)), layers.Lambda(keras.ops.linalg.det)])
    with pytest.raises(ValueError, match=r"cannot convert this model to LiteRT.*model=sequential"):
        keras_trim.export(model, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []
