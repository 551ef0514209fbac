"""Runs docs/command_line.md, and the plots of docs/gallery.md."""

import re
import shlex

import keras
import matplotlib.figure
import numpy as np
import pytest
from commands import ROOT, fill, run, run_json

import keras_trim
from keras_trim_cli.app import app

TEXT = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
GALLERY = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    fill(tmp_path)
    (tmp_path / "dense.keras").rename(tmp_path / "model.keras")
    for name in ("pruned.keras", "pruned.ktrim"):
        (tmp_path / name).unlink()  # the examples create them
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((16, 8, 8, 3), "float32"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("one_backend")
def test_examples(folder, force_kernels):
    force_kernels("sparse")  # so the check in the examples finds sparse kernels
    (folder / "my_layers.py").write_text("import keras\nclass Mine(keras.layers.Dense):\n  pass\n")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save("custom.keras")
    commands = re.findall(r"^\$ keras-trim (.+)$", TEXT, re.MULTILINE)
    assert len(commands) > 10
    for command in commands:
        if "--sizes" in command:
            continue  # it converts to LiteRT in another process, which takes a minute
        run(*shlex.split(command))
    assert (folder / "report.html").exists()


def test_every_command_and_key_is_documented(folder):
    for command in app.registered_commands:
        assert f"| `{command.name}` |" in TEXT
    run("prune", "model.keras", "pruned.keras", "-s", 0.5)
    report = run_json("report", "pruned.keras")
    documents = [
        report,
        report["layers"][0],
        report["layers"][0]["weights"][0],
        run_json("prune", "model.keras", "x.keras", "-s", 0.5),
        run_json("sensitivity", "model.keras", "-c", "x.npy", "--sparsities", "0.5"),
        run_json("compress", "pruned.keras"),
        run_json("decompress", "pruned.ktrim", "y.keras"),
        run_json("check", "pruned.keras", "--target", "nvidia-2:4", code=1),
        run_json("export", "pruned.keras", "z.safetensors"),
    ]
    benchmark = run_json("bench", "pruned.keras", "--seconds", 0, "--against", "none")
    documents += [benchmark, benchmark["layers"][0]]
    difference = run_json("diff", "model.keras", "pruned.keras")
    for document in (*documents, difference, difference["a"], difference["weights"][0]):
        for key in document:
            assert f"`{key}`" in TEXT, key


@pytest.mark.usefixtures("one_backend")
def test_plots_in_python(folder, monkeypatch):
    monkeypatch.delattr(keras_trim, "plots", raising=False)  # another test may have imported it
    model = keras.models.load_model("model.keras")
    blocks = re.findall(r"```python\n(.*?)```", GALLERY, re.DOTALL)
    known = {"keras": keras, "keras_trim": keras_trim, "model": model, "x": np.load("x.npy")}
    exec("\n".join(blocks), known)
    for name in ("sparsity", "mask", "histogram", "sensitivity"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert isinstance(keras_trim.plots.mask_figure([1, 0]), matplotlib.figure.Figure)
