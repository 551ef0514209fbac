"""Failures: one clear error, and the user's old file unchanged."""

import importlib
import io
import json
import os
import resource
import sys
import tempfile

import keras
import numpy as np
import pytest
from keras import layers
from models import assert_close, inputs_of, make, outputs_of, run_litert

import keras_trim
from keras_trim import exporters
from keras_trim.exporters import conversion, conversion_worker
from keras_trim.exporters.preparation import prepare

BACKEND = keras.backend.backend()
NEEDS = {"litert": "tensorflow", "onnx": "torch"}


@pytest.fixture
def old_file(tmp_path):
    """An existing file at the target path. After the test it is unchanged and the only file."""
    path = tmp_path / "out" / "model"
    path.parent.mkdir()
    path.write_bytes(b"old")
    yield path
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["model"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "tflite"}, r"one of 'litert', .*mean 'litert'\?\).*Received: format='tflite'"),
        ({"format": ["onnx"]}, r"`format` must be one of .*Received: format=\['onnx'\]"),
        ({"weights": "int4"}, r"`weights` must be one of None.*Received: weights='int4'"),
        ({"weights": "fp16"}, r"did you mean 'float16'\?"),
        ({"verbose": "loud"}, "`verbose` must be 'auto', True or False"),
        ({"format": "onnx", "weights": "int8"}, r"in float32 or float16.*weights='int8'"),
        (
            {"format": "openvino"},
            r"`path` must have the ending.*For openvino files: .xml. Received: path=",
        ),
        ({"format": None}, r"must have the ending of its format: .tflite.*format=None"),
        ({"format": "onnx", "representative_data": np.ones((1, 64))}, "for LiteRT files"),
        (
            {"weights": "float16", "representative_data": np.ones((1, 64))},
            "with weights='int8'. Received: format='litert', weights='float16'",
        ),
        ({"verification_data": np.ones((3, 5))}, r"must be of shape \(any, 64\)"),
        ({"representative_data": np.ones((0, 64))}, "at least one example"),
        ({"model": 3}, r"`model` must be a Keras model. Received: model=3"),
        ({"model": keras.Sequential([layers.Dense(2)])}, "inputs are not known"),
    ],
)
def test_arguments(arguments, message, old_file):
    with pytest.raises(ValueError, match=message):
        keras_trim.export(
            **{"model": make("mlp"), "path": old_file, "format": "litert", **arguments}
        )


@pytest.mark.parametrize("format", NEEDS)
def test_inputs_of_text(format, old_file):
    text = keras.Input((1,), dtype="string", name="words")
    with pytest.raises(ValueError, match="after those.*Received: input 'words' of dtype string"):
        keras_trim.export(keras.Model(text, text), old_file, format=format)


def test_quantized_layers(old_file):
    model = make("mlp")
    model.layers[1].quantize("int8")
    name = model.layers[1].name
    with pytest.raises(ValueError, match=f"before `quantize`.*Received: '{name}' \\(int8\\)"):
        keras_trim.export(model, old_file, format="litert")


class Softmax(keras.Model):
    def predict_step(self, data):
        return keras.ops.softmax(super().predict_step(data))


@pytest.mark.parametrize("format", NEEDS)
def test_predict_step(format, old_file):
    x = keras.Input((4,))
    model = Softmax(x, layers.Dense(3)(x), name="own")
    with pytest.raises(ValueError, match=r"`Softmax` has a `predict_step`.*Received: model=own"):
        keras_trim.export(model, old_file, format=format)
    model = keras.Sequential([x, layers.Dense(3)])
    model.predict_step = lambda data: data
    with pytest.raises(ValueError, match="`predict_step`"):
        keras_trim.export(model, old_file, format=format)


def test_a_folder_in_the_way_of_the_second_file(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr(exporters, "_convert", None)  # it fails before
    (tmp_path / "model.bin").mkdir()
    with pytest.raises(IsADirectoryError, match="Received: path=.*model.bin"):
        keras_trim.export(make("mlp"), tmp_path / "model.xml")
    assert os.listdir(tmp_path) == ["model.bin"]


def test_any_error_of_a_converter(monkeypatch, tmp_path):
    """Errors in the converting process keep their type and message."""
    job = {"folder": str(tmp_path), "classes": [], "name": "m", "converter": "math"}
    job.update({"task": "convert", "options": {}})
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(job)))
    monkeypatch.setattr(conversion_worker, "_load", lambda *_: None)
    conversion_worker.main()  # the module `math` has no `convert`
    result = json.loads((tmp_path / conversion_worker.RESULT).read_text())
    assert result["kind"] == "ValueError"
    assert "cannot be converted: AttributeError: module 'math' has no" in result["message"]
    assert result["message"].endswith("Received: model=m")


def test_a_model_without_weights(tmp_path):
    model = keras.Sequential([keras.Input((2,)), layers.ReLU()])
    keras_trim.export(model, tmp_path / "model.safetensors", format="safetensors")


def test_a_folder_in_the_way(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"Cannot write.*Received: path={tmp_path}"):
        keras_trim.export(make("mlp"), tmp_path, format="safetensors")


def test_a_missing_folder(tmp_path):
    path = tmp_path / "none" / "model"
    with pytest.raises(FileNotFoundError, match=f"No such file.*Received: path={path}"):
        keras_trim.export(make("mlp"), path, format="litert")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_a_read_only_folder(old_file):
    os.chmod(old_file.parent, 0o500)
    try:
        with pytest.raises(PermissionError, match="Cannot write the file: Permission denied"):
            keras_trim.export(make("mlp"), old_file, format="litert")
    finally:
        os.chmod(old_file.parent, 0o700)


def test_a_full_disk(old_file):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="Cannot write the file: File too large.*as before"):
            keras_trim.export(make("mlp"), old_file, format="safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_an_old_file_is_replaced(tmp_path):
    path, link = tmp_path / "model", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path)
    keras_trim.export(make("mlp"), link, format="safetensors")
    assert link.is_symlink()
    assert path.read_bytes() != b"old"
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link", "model"]


@pytest.mark.parametrize(
    ("format", "package", "extras"),
    [
        ("litert", "ai_edge_litert", "litert"),
        ("litert", "tensorflow", "litert,tensorflow"),
        ("onnx", "onnxscript", "onnx"),
        ("safetensors", "safetensors", "safetensors"),
    ],
)
def test_a_missing_extra(format, package, extras, old_file, monkeypatch):
    model = make("mlp")
    monkeypatch.setitem(sys.modules, package, None)  # as if not installed
    message = rf'pip install "keras-trim\[{extras}\]". Not found: {package}. Received: format='
    with pytest.raises(ImportError, match=message):
        keras_trim.export(model, old_file, format=format)


def test_a_package_that_is_broken_where_the_model_is_converted(old_file, tmp_path, monkeypatch):
    (tmp_path / "onnxscript.py").write_text("raise ImportError('no such symbol')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "onnxscript"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises((ImportError, ValueError), match="no such symbol"):
        keras_trim.export(make("mlp"), old_file, format="onnx")


class Shift(layers.Layer):
    """A layer from a module that other processes cannot import."""

    def call(self, x):
        return x + 1


@pytest.mark.slow
@pytest.mark.parametrize("format", NEEDS)
def test_classes_that_another_process_cannot_know(format, old_file, monkeypatch):
    monkeypatch.setattr(Shift, "__module__", "__main__")
    model = keras.Sequential([keras.Input((2,)), Shift()])
    if NEEDS[format] == BACKEND:  # this process converts, and it knows the class
        keras_trim.export(model, old_file.parent.parent / "model", format=format)
        return
    message = f"'Shift'.*own classes and functions to a module.*KERAS_BACKEND={NEEDS[format]}"
    with pytest.raises(ValueError, match=message):
        keras_trim.export(model, old_file, format=format)


@pytest.mark.filterwarnings("ignore")  # Keras's about layers that it cannot build
def test_functions_that_another_process_cannot_know(tmp_path):
    model = keras.Sequential([keras.Input((2,)), layers.Lambda(lambda x: len(NEEDS) * x)])
    model.save(tmp_path / "model.keras")
    message = "cannot load it: .*(Lambda|NEEDS).*functions to a module.*Received: model=own"
    with pytest.raises(ValueError, match=message):
        conversion_worker._load(tmp_path / "model.keras", [], "own")


def test_classes_of_a_module(tmp_path, monkeypatch):
    (tmp_path / "own_layers.py").write_text(
        "import keras\n\n\nclass Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n        return 2 * x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own_layers = importlib.import_module("own_layers")
    model = keras.Sequential([keras.Input((3,)), own_layers.Twice(), layers.Dense(2)])
    keras_trim.export(model, tmp_path / "model.tflite")
    inputs = inputs_of(model, 2)
    assert_close(run_litert(tmp_path / "model.tflite", inputs), outputs_of(model, inputs))


@pytest.mark.skipif(BACKEND == "tensorflow", reason="no other process is needed")
def test_a_process_that_dies(old_file, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ValueError, match=r"ended early with exit code 1.*Received: model="):
        keras_trim.export(make("mlp"), old_file, format="litert")


def test_a_frozen_program_does_not_start_itself(old_file, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    other = "litert" if BACKEND == "torch" else "onnx"
    with pytest.raises(ValueError, match="a frozen or embedded program cannot start"):
        keras_trim.export(make("mlp"), old_file, format=other)


def test_a_process_imports_from_where_this_one_does(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise ImportError('of the current folder')")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "own_module.py").write_text(
        "import json\nimport sys\n\nprint(sys.stdin.read())"
    )
    monkeypatch.chdir(tmp_path)
    # Python ignores the path that is no string.
    monkeypatch.setattr(sys, "path", [tmp_path, str(tmp_path / "modules"), *sys.path])
    process = conversion_worker.run("own_module", {"job": 1}, BACKEND)
    assert process.stdout == '{"job": 1}\n', process.stderr


@pytest.mark.slow
def test_a_killed_process_leaves_nothing(tmp_path, monkeypatch):
    """As when the user interrupts a conversion, for which the process is killed."""
    other = "tensorflow" if BACKEND == "torch" else "torch"  # so that another process converts
    (tmp_path / "killed.py").write_text(
        f"import os, tempfile\n\nBACKEND = '{other}'\n\n\n"
        "def convert(model, cases):\n    tempfile.mkdtemp()\n    os.kill(os.getpid(), 9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.raises(ValueError, match="ended early with exit code -9"):
        conversion.convert(prepare(make("mlp")), importlib.import_module("killed"), [])
    assert os.listdir(tmp_path / "temporary") == []


def test_subclassed_models(old_file):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Subclassed()
    model(np.ones((1, 3)))
    message = r"Functional.*and `keras.Model\(x, model\(x\)\)`.*Received: model=subclassed"
    x = keras.Input((3,))
    for format, backend in NEEDS.items():
        with pytest.raises(ValueError, match=message):
            keras_trim.export(model, old_file, format=format)
        if backend == BACKEND:
            path = old_file.parent.parent / "model"
            keras_trim.export(keras.Model(x, model(x)), path, format=format)
