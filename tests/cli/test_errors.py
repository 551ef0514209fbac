"""Careless input: a one-line error, and the user's files unchanged."""

import os
import signal
import sys
import textwrap

import keras
import numpy as np
import pytest
from commands import error_of, fill, run

from keras_trim_cli import backend
from keras_trim_cli.errors import CommandError, describe, system_error


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path)


@pytest.mark.parametrize("name", ["bad.keras", "bad.h5", "bad.ktrim"])
@pytest.mark.parametrize("content", [b"", b"hello" * 99, None])
def test_files_that_are_no_models(folder, name, content):
    if content is None:  # truncated
        source = {"bad.keras": "dense.keras", "bad.h5": "dense.h5", "bad.ktrim": "pruned.ktrim"}
        content = (folder / source[name]).read_bytes()[:700]
    (folder / name).write_bytes(content)
    assert name in error_of("report", folder / name)


def test_unknown_types(folder):
    (folder / "model.tflite").write_bytes(b"")
    (folder / "model.weights.h5").write_bytes(b"")
    assert "is of no known type" in error_of("report", folder / "model.tflite")
    assert "weights without a model" in error_of("report", folder / "model.weights.h5")
    for name in ("x.pb", "x.KERAS"):
        line = error_of("prune", folder / "dense.keras", folder / name, "-s", 0.5)
        assert ".keras, .h5 and .ktrim files, in lower case" in line
    (folder / "P.KTRIM").write_bytes(b"")
    assert "in lower case" in error_of("report", folder / "P.KTRIM")
    error_of("export", folder / "dense.keras", folder / "x.TFLITE", code=2)


def test_custom_layers(folder, monkeypatch):
    source = """
        import keras

        class Twice(keras.layers.Layer):
            def call(self, x):
                return 2 * x
    """
    (folder / "twice_layers.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(folder)
    import twice_layers

    model = keras.Sequential([keras.Input((4,)), twice_layers.Twice(), keras.layers.Dense(2)])
    model.save(folder / "custom.keras")
    model.save(folder / "custom.h5")
    monkeypatch.delitem(sys.modules, "twice_layers")
    for name in ("custom.keras", "custom.h5"):
        line = error_of("report", folder / name)
        assert "custom object 'Twice'" in line
        assert "--import" in line
        run("report", folder / name, "--import", folder / "twice_layers.py")
        run("report", folder / name, "--import", "twice_layers")
    # Put the module where another process finds it, too.
    (folder / "sub").mkdir()
    (folder / "sub" / "more_layers.py").write_text("class More: pass")
    run("report", folder / "dense.keras", "--import", folder / "sub" / "more_layers.py")
    assert sys.path[-1] == str(folder / "sub")
    sys.path.pop()
    assert "cannot import nowhere" in error_of("report", folder / name, "--import", "nowhere")
    (folder / "script.py").write_text("import sys; sys.exit(2)")
    line = error_of("report", folder / name, "--import", folder / "script.py")
    assert "script.py: SystemExit: 2" in line


def test_compile_state_that_cannot_be_restored(folder):
    def my_loss(y, y_pred):
        return y - y_pred

    model = keras.models.load_model(folder / "dense.keras")
    model.compile("sgd", my_loss)
    model.save(folder / "custom.keras")
    for command in (["prune", "-s", "0.5"], ["compress"]):
        arguments = (command[0], folder / "custom.keras", folder / "x.ktrim", *command[1:])
        line = error_of(*arguments)
        assert "'my_loss'" in line
        assert "by --no-compile" in line
        run(*arguments, "--no-compile")
        (folder / "x.ktrim").unlink()
    model.compile("sgd", "mse")
    model.save(folder / "custom.h5")  # which Keras cannot restore
    line = error_of("prune", folder / "custom.h5", folder / "x.ktrim", "-s", 0.5)
    assert "by --no-compile" in line
    run("prune", folder / "custom.h5", folder / "x.ktrim", "-s", 0.5, "--no-compile")


def test_lambda_layers_are_not_run(folder):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: 2 * x)])
    model.save(folder / "lambda.keras")
    assert "Lambda layer, that is Python code" in error_of("report", folder / "lambda.keras")


def test_outputs_that_cannot_be(folder):
    before = (folder / "pruned.keras").read_bytes()
    prune = ("prune", folder / "dense.keras")
    assert "--force" in error_of(*prune, folder / "pruned.keras", "-s", 0.5)
    assert "there is no folder" in error_of(*prune, folder / "no" / "x.keras", "-s", 0.5)
    (folder / "folder.keras").mkdir()
    assert "no regular file" in error_of(*prune, folder / "folder.keras", "-s", 0.5, "-f")
    assert (folder / "pruned.keras").read_bytes() == before


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("kept", [0, 150])
def test_files_that_are_no_arrays(folder, name, kept):
    (np.save if name == "x.npy" else np.savez)(folder / name, np.ones((50, 8)))
    (folder / name).write_bytes((folder / name).read_bytes()[:kept])
    for arguments in (
        ("export", folder / "dense.keras", folder / "m.tflite", "--representative-data"),
        ("sensitivity", folder / "dense.keras", "--calibration"),
    ):
        assert f"cannot read {folder / name}" in error_of(*arguments, folder / name)


def test_a_model_in_place_of_examples(folder):
    model = folder / "dense.keras"  # a zip archive, as a .npz file is
    line = error_of("prune", model, folder / "x.keras", "-s", 0.5, "-c", model)
    assert f"cannot read {model}: it must be a .npy or .npz file" in line


def test_the_second_file_of_openvino_is_not_overwritten(folder):
    (folder / "m.bin").write_bytes(b"mine")
    line = error_of("export", folder / "dense.keras", folder / "m.xml")
    assert f"{folder / 'm.bin'} exists already: give --force" in line
    assert (folder / "m.bin").read_bytes() == b"mine"


def test_a_failing_writer_leaves_the_old_file(folder, monkeypatch):
    before = (folder / "pruned.keras").read_bytes()

    def save(model, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", save)
    line = error_of("prune", folder / "dense.keras", folder / "pruned.keras", "-s", 0.5, "--force")
    assert line == f"keras-trim: cannot write {folder / 'pruned.keras'}: No space left on device"
    assert (folder / "pruned.keras").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_a_link_stays_a_link(folder):
    link = folder / "link.keras"
    link.symlink_to("pruned.keras")
    run("prune", folder / "dense.keras", link, "-s", 0.5, "--force")
    assert link.is_symlink()
    assert "50.00% are zero" in run("report", folder / "pruned.keras").stdout


def test_descriptions_are_one_line():
    assert describe(MemoryError()) == "out of memory"
    assert describe(ValueError("a\n  b")) == "a b"
    assert describe(KeyError("a")).startswith("KeyError: 'a' (KERAS_TRIM_DEBUG=1")
    assert describe(OSError(13, "Permission denied", "x")) == "Permission denied: x"
    assert len(describe(CommandError("long " * 999))) <= 400
    hdf5 = OSError("write failed: time = now\n, errno = 28, error message = 'No space'")
    assert system_error(hdf5) == "No space left on device"


def test_interrupts_wait_for_imports():
    steps = []

    def start():
        with backend.postponed_interrupts():
            signal.raise_signal(signal.SIGINT)
            steps.append("imported")
        steps.append("started")

    # The tests may run in the background of a shell, which ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert steps == ["imported"]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with backend.postponed_interrupts():
            signal.raise_signal(signal.SIGINT)  # still ignored, as in the background of a shell
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_backend_is_one_that_is_installed(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    installed = {"torch"}
    monkeypatch.setattr(backend, "_is_installed", lambda name: name in installed)
    assert backend.choose() == "torch"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(CommandError, match=r'KERAS_BACKEND=jax.*"keras-trim\[jax\]"'):
        backend.choose()
    monkeypatch.delenv("KERAS_BACKEND")
    (tmp_path / "keras.json").write_text('{"backend": "tensorflow"}')
    assert backend.choose() == "torch"
    monkeypatch.delenv("KERAS_BACKEND")
    installed.clear()
    with pytest.raises(CommandError, match="needs a backend"):
        backend.choose()


def test_backend_of_a_user_without_a_home(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(backend, "_is_installed", lambda name: name == "torch")
    assert backend.choose() == "torch"
