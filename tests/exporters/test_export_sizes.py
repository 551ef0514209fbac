"""Files at sizes that were not traced, in low precision, with any names; and their errors."""

import keras
import numpy as np
import pytest
from keras import layers
from models import (
    assert_close,
    inputs_of,
    make,
    outputs_of,
    randomize,
    run_litert,
    run_onnx,
    run_openvino,
)

import keras_trim

BACKEND = keras.backend.backend()
CONVERTER = {".tflite": "tensorflow", ".onnx": "torch", ".xml": "torch"}
RUN = {".tflite": run_litert, ".onnx": run_onnx, ".xml": run_openvino}
# In another process the converter is the same. One format shows that it receives what it needs.
HERE = [ending for ending, backend in CONVERTER.items() if backend == BACKEND] or [".onnx"]


def padded_alike():
    """Padding "same" with windows and strides of all kinds, on images of any size."""
    x = keras.Input((None, None, 3), name="image")
    outputs = [
        layers.MaxPooling2D(2, padding="same")(x),
        layers.MaxPooling2D(3, strides=2, padding="same")(x),
        layers.Conv2D(4, 3, strides=2, padding="same")(x),
        layers.Conv2D(4, (2, 5), padding="same")(x),
        layers.Conv2D(4, 3, dilation_rate=2, padding="same")(x),
        layers.DepthwiseConv2D(4, strides=3, padding="same")(x),
        layers.AveragePooling2D(3, strides=1, padding="same")(x),
    ]
    model = keras.Model(x, outputs)
    randomize(model)
    return model


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "jax", reason="converters run under the other two")
@pytest.mark.parametrize("ending", HERE)
def test_padding_at_any_size(ending, tmp_path):
    model, path = padded_alike(), tmp_path / f"model{ending}"
    result = keras_trim.export(model, path)
    assert result.largest_error < 1e-4
    for sizes in ((1, 1), (2, 9), (31, 32), (33, 40)):
        x = np.random.default_rng(1).standard_normal((2, *sizes, 3)).astype("float32")
        assert_close(RUN[ending](path, [x]), outputs_of(model, [x]))


@pytest.mark.slow
@pytest.mark.parametrize("ending", HERE)
def test_mixed_precision_and_names_in_any_script(ending, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    x = keras.Input((8, 8, 3), name="输入 1")
    hidden = layers.BatchNormalization()(layers.Conv2D(16, 3, name="层 🙂")(x))
    model = keras.Model(x, layers.Dense(3, name="выход")(layers.Flatten()(hidden)), name="модель")
    randomize(model)
    path = tmp_path / f"模型{ending}"
    if ending == ".tflite":
        with pytest.warns(
            UserWarning, match="inputs have names that LiteRT accepts: '输入 1' is '1'"
        ):
            keras_trim.export(model, path)
    else:
        keras_trim.export(model, path)
    inputs = inputs_of(model, 5)
    (values,) = RUN[ending](path, inputs)
    assert values.dtype == np.float32
    (expected,) = outputs_of(model, inputs)
    assert_close([values], [expected.astype("float32")], 0.05)
    if ending == ".onnx":
        import onnx

        graph = onnx.load(path).graph
        assert [value.name for value in graph.input] == ["输入 1"]
        assert [value.name for value in graph.output] == ["выход"]


def odd_one(is_nested):
    """A layer for which backends differ: they average the padding at edges or leave it out."""
    odd = layers.AveragePooling2D(3, strides=2, padding="same", name="odd_one")
    x = keras.Input((16, 16, 3))
    hidden = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    if is_nested:
        inner = keras.Input((16, 16, 8))
        odd = keras.Model(inner, layers.ReLU()(odd(layers.ReLU()(inner))))
    return keras.Model(x, layers.Conv2D(4, 3)(odd(hidden)))


@pytest.mark.slow
def test_what_another_backend_computes_otherwise(tmp_path):
    """The file would be right for the converting backend and wrong for the user's."""
    ending = ".tflite" if BACKEND == "torch" else ".onnx"
    (tmp_path / f"model{ending}").write_bytes(b"old")
    message = (
        rf"on the {BACKEND} backend: for batches of \d they differ by 0.\d+ of the largest; the "
        r"first layer whose outputs differ is 'odd_one' \(AveragePooling2D\)"
    )
    with pytest.raises(ValueError, match=message):
        keras_trim.export(odd_one(BACKEND == "tensorflow"), tmp_path / f"model{ending}")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.skipif(BACKEND != "torch", reason="the converter runs under PyTorch")
def test_half_weights(tmp_path):
    model = make("mlp")
    full = keras_trim.export(model, tmp_path / "model.onnx")
    inputs = inputs_of(model, 3)
    for ending in (".onnx", ".xml"):
        half = keras_trim.export(model, tmp_path / f"model{ending}", weights="float16")
        assert half.num_bytes < 0.7 * full.num_bytes or ending == ".xml"
        assert 1e-5 < half.largest_error < 5e-3
        values = RUN[ending](tmp_path / f"model{ending}", inputs)
        assert_close(values, outputs_of(model, inputs), 5e-3)
    assert (tmp_path / "model.bin").stat().st_size < 2.2 * model.count_params()
    model.layers[0].kernel.assign(model.layers[0].kernel * 1e6)
    with pytest.raises(ValueError, match="too large for float16"):
        keras_trim.export(model, tmp_path / "model.onnx", weights="float16")


@pytest.mark.skipif(BACKEND != "torch", reason="the converter runs under PyTorch")
def test_openvino(tmp_path):
    model = make("branches")
    result = keras_trim.export(model, tmp_path / "model.xml")
    files = [tmp_path / "model.bin", tmp_path / "model.xml"]
    assert sorted(tmp_path.iterdir()) == files
    assert result.num_bytes == sum(path.stat().st_size for path in files)
    inputs = inputs_of(model, 3)
    assert_close(run_openvino(files[1], inputs), outputs_of(model, inputs))


@pytest.mark.slow
def test_a_litert_file_has_the_model_s_names_of_inputs(tmp_path):
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(3)])
    path, x = tmp_path / "model.tflite", np.random.default_rng(0).standard_normal((8, 4))
    result = keras_trim.export(model, path, representative_data=x.astype("float32"), verbose=0)
    assert result.accuracy.num_examples == 8
    from ai_edge_litert.interpreter import Interpreter

    (signature,) = Interpreter(model_path=str(path)).get_signature_list().values()
    assert signature["inputs"] == [tensor.name for tensor in model.inputs]


@pytest.mark.slow
def test_representative_data(tmp_path):
    model, path = make("cnn", sparsity=0.0), tmp_path / "model.tflite"
    images = np.random.default_rng(0).random((64, 16, 16, 3)).astype("float32")
    result = keras_trim.export(model, path, representative_data=((x,) for x in np.split(images, 4)))
    assert result.weights == "int8"
    assert result.largest_error < 0.2  # on these data: others exceed the ranges that were measured
    assert str(result).endswith(f" bytes, int8, zeros stored like other values; {result.accuracy}")
    assert result.accuracy.num_examples == 64
    rows = [run_litert(path, [images[row : row + 1]])[0] for row in range(64)]
    (expected,) = outputs_of(model, [images])
    error = np.sqrt(np.square(np.concatenate(rows) - expected).sum() / np.square(expected).sum())
    assert result.accuracy.relative_error == pytest.approx(error, rel=1e-3)
    assert 1e-4 < error < 0.2
    same = (np.concatenate(rows).argmax(-1) == expected.argmax(-1)).mean()
    assert result.accuracy.agreement == pytest.approx(same)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    dtypes = [each["dtype"] for each in interpreter.get_tensor_details()]
    assert dtypes.count(np.float32) == 2  # the input and the output; everything else is integer
