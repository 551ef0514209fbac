"""Recurrent layers of all kinds, with masks, at any number of steps, in files of each runtime.

One model has them all, because each conversion takes seconds.
"""

import keras
import numpy as np
import pytest
from keras import layers
from models import assert_close, outputs_of, randomize, run_litert, run_onnx, run_openvino

import keras_trim

BACKEND = keras.backend.backend()
KINDS = {
    "LSTM": lambda: layers.LSTM(4),
    "LSTM back": lambda: layers.LSTM(4, go_backwards=True, return_sequences=True),
    "LSTM of other functions": lambda: layers.LSTM(
        3, activation="elu", recurrent_activation="hard_sigmoid", return_sequences=True
    ),
    "LSTM without biases": lambda: layers.LSTM(3, use_bias=False, activation="relu"),
    "GRU": lambda: layers.GRU(4, return_sequences=True),
    "GRU of another order": lambda: layers.GRU(4, reset_after=False),
    "SimpleRNN": lambda: layers.SimpleRNN(4, return_sequences=True),
    "two ways": lambda: layers.Bidirectional(layers.GRU(3, return_sequences=True)),
    "two ways, added": lambda: layers.Bidirectional(layers.LSTM(3), merge_mode="sum"),
    "stacked": lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_sequences=True),
}


def every_kind(kinds=KINDS):
    words = keras.Input((None,), dtype="int32", name="words")
    vectors = layers.Embedding(20, 5, mask_zero=True)(words)
    outputs = [make()(vectors) for make in kinds.values()]
    outputs += layers.LSTM(2, return_state=True)(vectors)
    outputs.append(layers.TimeDistributed(layers.Dense(2))(vectors))
    model = keras.Model(words, outputs)
    randomize(model)
    return model


def padded(steps, place):
    words = np.random.default_rng(5).integers(1, 20, (3, steps)).astype("int32")
    for row, count in ((0, steps // 2), (1, steps - 1)):
        words[row, steps - count :] *= place != "behind"
        words[row, :count] *= place != "before"
    return words


# On other backends the converter is the same and runs in another process, so a few cases suffice.
STEPS = (6,) if BACKEND == "jax" else (1, 6, 31, 32, 50)
INPUTS = [padded(steps, place) for steps in STEPS for place in ("", "behind", "before")]
INPUTS.append(padded(6, "behind") * np.array([[0], [1], [1]], "int32"))  # one row is all padding


def exported(folder, ending):
    few = ("tensorflow" if ending == ".tflite" else "torch") != BACKEND
    kinds = {name: KINDS[name] for name in list(KINDS)[: 2 if few else None]}
    model, path = every_kind(kinds), folder / f"model{ending}"
    return model, path, keras_trim.export(model, path)


@pytest.mark.slow
def test_onnx(tmp_path):
    import onnx

    model, path, result = exported(tmp_path, ".onnx")
    assert result.batch_size is None
    for words in INPUTS:
        assert_close(run_onnx(path, [words]), outputs_of(model, [words]))
    loops = [node.op_type for node in onnx.load(path).graph.node]
    assert loops.count("LSTM") >= 3  # ONNX's own operation, not unrolled steps
    assert loops.count("Scan") == (2 if BACKEND == "torch" else 0)


@pytest.mark.skipif(BACKEND != "torch", reason="made of the ONNX file, which is tested")
def test_openvino(tmp_path):
    x = keras.Input((None, 3))
    model = keras.Model(x, layers.Bidirectional(layers.GRU(4))(x))
    randomize(model)
    keras_trim.export(model, tmp_path / "model.xml")
    for steps in (1, 5, 33):
        frames = np.random.default_rng(0).standard_normal((2, steps, 3)).astype("float32")
        assert_close(run_openvino(tmp_path / "model.xml", [frames]), outputs_of(model, [frames]))


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="the converter runs under TensorFlow")
def test_litert(tmp_path):
    with pytest.warns(UserWarning, match="one example at a time.*recurrent"):
        model, path, result = exported(tmp_path, ".tflite")
    assert result.batch_size == 1
    for words in INPUTS:
        rows = [run_litert(path, [words[row : row + 1]]) for row in range(len(words))]
        values = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        assert_close(values, outputs_of(model, [words]))


@pytest.mark.skipif(BACKEND != "torch", reason="the converter runs under PyTorch")
def test_what_is_traced_is_as_it_was():
    before = [cls.inner_loop for cls in (layers.RNN, layers.LSTM, layers.GRU)]
    before += [layers.TimeDistributed.call, keras.src.backend.torch.nn._apply_same_padding]
    from keras_trim.exporters import onnx

    with pytest.raises(ValueError, match="cannot convert this model to ONNX"):
        onnx.convert(keras.Sequential([keras.Input((2,)), Broken()]), [])
    after = [cls.inner_loop for cls in (layers.RNN, layers.LSTM, layers.GRU)]
    after += [layers.TimeDistributed.call, keras.src.backend.torch.nn._apply_same_padding]
    assert before == after


class Broken(layers.Layer):
    def call(self, x):
        if keras.src.backend.torch.nn._apply_same_padding.__module__.startswith("keras_trim"):
            raise TypeError("while it is traced")
        return x
