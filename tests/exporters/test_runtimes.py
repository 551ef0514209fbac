"""Exported files, read and run by their runtimes, on every backend."""

import contextlib

import keras
import numpy as np
import pytest
from models import MODELS, assert_close, inputs_of, make, outputs_of, run_litert, run_onnx

import keras_trim

# The size of a model's float32 weights, in bytes.
BYTES = {name: sum(4 * np.prod(v.shape) for v in build().weights) for name, build in MODELS.items()}


def models(backend):
    """Selects the models that `backend` exports.

    The other backends read the model from a file in another process. That takes seconds, and the
    rest is the same.
    """
    return MODELS if keras.backend.backend() == backend else ("branches",)


def one_at_a_time(name):
    if name == "lstm":
        return pytest.warns(UserWarning, match="one example at a time.*recurrent")
    return contextlib.nullcontext()


@pytest.mark.slow
@pytest.mark.parametrize("name", models("tensorflow"))
def test_litert(name, tmp_path):
    model, path = make(name), tmp_path / "model.tflite"
    with one_at_a_time(name):
        result = keras_trim.export(model, path)
    assert result.num_bytes == path.stat().st_size
    assert result.batch_size == (1 if name == "lstm" else None)
    for batch_size in (1,) if name == "lstm" else (1, 3):
        inputs = inputs_of(model, batch_size)
        assert_close(run_litert(path, inputs), outputs_of(model, inputs))
    if name in ("mlp", "lstm"):  # files whose weights outweigh the graph
        assert result.is_sparse
        assert result.num_bytes < 0.7 * BYTES[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", models("torch"))
def test_onnx(name, tmp_path):
    import onnx

    model, path = make(name), tmp_path / "model.onnx"
    result = keras_trim.export(model, path, format="onnx")
    assert result.num_bytes == path.stat().st_size
    assert result.batch_size is None
    for batch_size in (1, 3):
        inputs = inputs_of(model, batch_size)
        assert_close(run_onnx(path, inputs), outputs_of(model, inputs))
    graph = onnx.load(path).graph
    assert not {node.op_type for node in graph.node} & {"Cast", "Identity"}
    if name == "branches":
        assert [value.name for value in graph.input] == ["left", "right"]
        assert [value.name for value in graph.output] == ["wide", "narrow"]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch converts in any case")
def test_onnx_comparisons_of_floats_with_integers(tmp_path):
    x = keras.Input((4,))
    model = keras.Model(x, [x > 0, x >= -1, x < 1, x <= 2, x != 0, keras.ops.where(x > 0, x, 0)])
    keras_trim.export(model, tmp_path / "model.onnx")
    data = np.array([[-1, 0, 1, 2], [-1.5, 0.5, 1.5, 2.5]], "float32")
    for value, expected in zip(
        run_onnx(tmp_path / "model.onnx", [data]), outputs_of(model, [data]), strict=True
    ):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "tolerance"),
    [("float16", 5e-3), ("int8", 0.1)][: 2 if keras.backend.backend() == "tensorflow" else 1],
)
def test_smaller_litert_weights(weights, tolerance, tmp_path):
    model = make("mlp")
    warning = (
        pytest.warns(UserWarning, match="int8 weights are stored densely")
        if weights == "int8"
        else contextlib.nullcontext()
    )
    with warning:
        result = keras_trim.export(model, tmp_path / "model.tflite", weights=weights)
    assert result.is_sparse == (weights == "float16")
    assert result.num_bytes < 0.4 * BYTES["mlp"]
    inputs = inputs_of(model, 3)
    assert_close(
        run_litert(tmp_path / "model.tflite", inputs), outputs_of(model, inputs), tolerance
    )


@pytest.mark.slow
@pytest.mark.parametrize("format", ["litert", "onnx"])
def test_a_model_while_it_is_pruned(format, tmp_path):
    model, path = make("mlp"), tmp_path / "model"
    keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.8, 0))
    model.compile("adam", "mse")
    x, y = inputs_of(model, 4), np.ones((4, 4))
    model.fit(*x, y, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])
    before = state(model)
    keras_trim.export(model, path, format=format)
    for old, new in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(old, new)
    run = run_litert if format == "litert" else run_onnx
    assert_close(run(path, x), outputs_of(model, x))
    model.fit(*x, y, verbose=0, callbacks=[keras_trim.UpdatePruningStep()])


def state(model):
    variables = (*model.variables, *model.optimizer.variables)
    return [keras.ops.convert_to_numpy(variable.value) for variable in variables]
