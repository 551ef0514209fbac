"""Every experiment on tiny data made here: rows, files that are read again, and resuming."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from experiments import command, images, keywords, translation


def _run(module, arguments, folder):
    """The lines of JSON that a quick run wrote."""
    options = ["--quick", "--work", str(folder), "--results", str(folder), *arguments]
    command.run(module.parse(options), module.make_task)
    (path,) = folder.glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def _check(lines):
    rows = [line for line in lines if line["kind"] == "row"]
    assert [row["target"] for row in rows] == [None, 0.8]
    dense, pruned = rows
    assert dense["zeros"] < 0.01 * dense["pruned_weights"]
    # Each weight's count is rounded, so up to half a weight for each is missed.
    assert abs(pruned["zeros"] - 0.8 * pruned["pruned_weights"]) < 60
    assert pruned["ktrim_bytes"] < 0.8 * dense["ktrim_bytes"]
    for row in rows:
        assert 0 <= row["test"] <= 100
        assert row["steps"] == 6
        assert row["versions"]["keras"]
    assert [line["kind"] for line in lines if line["kind"] != "row"] == ["choice", "start"]


@pytest.mark.slow
def test_keywords(tmp_path):
    random = np.random.default_rng(0)
    labels = np.tile(np.arange(12), 6).astype("int8")
    np.savez(
        tmp_path / "speech_mfcc.npz",
        mfcc=random.standard_normal((72, 49, 10), "float32") + labels[:, None, None],
        label=labels,
        source=np.where(np.arange(72) < 60, "official_test_v0.02", "isolated_v0.01"),
        part=np.array(["tune", "val", "test", "tune", "tune", "train"]).repeat(12),
    )
    _check(_run(keywords, ["--data", str(tmp_path)], tmp_path / "out"))


@pytest.mark.slow
def test_images(tmp_path):
    random = np.random.default_rng(0)
    jpegs = []
    for _ in range(48):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (32, 32, 3), "uint8")).save(file, "JPEG")
        jpegs.append(file.getvalue())
    np.savez(
        tmp_path / "cifar_tiny.npz",
        blob=np.frombuffer(b"".join(jpegs), np.uint8),
        off=np.cumsum([0, *map(len, jpegs)]),
        label=np.arange(48) % 3,
        split=np.repeat([0, 2], [32, 16]),
    )
    arguments = ["--model", "mobilenet_v1", "--width", "0.25"]
    data = ["--data", str(tmp_path / "cifar_tiny.npz")]
    _check(_run(images, [*arguments, *data], tmp_path / "out"))


@pytest.mark.slow
def test_translation(tmp_path):
    random = np.random.default_rng(0)
    numbers = ["one", "two", "three", "four", "five", "six"]
    zahlen = ["eins", "zwei", "drei", "vier", "fuenf", "sechs"]
    for part, count in (("train", 60), ("val", 3), ("test", 3)):
        rows = [random.integers(0, 6, random.integers(2, 9)) for _ in range(count)]
        for language, words in (("en", numbers), ("de", zahlen)):
            text = "\n".join(" ".join(words[i] for i in row) for row in rows)
            (tmp_path / f"{part}.{language}").write_text(text + "\n", encoding="utf-8")
    arguments = ["--direction", "en-de", "--width", "8"]
    lines = _run(translation, [*arguments, "--data", str(tmp_path)], tmp_path / "out")
    _check(lines)
    assert "version:" in lines[-1]["signature"]


@pytest.mark.parametrize("frames", [2, -2, 0])
def test_shift(frames):
    clips = np.arange(1, 6, dtype="float32").reshape(1, 5, 1, 1)
    moved = keywords.shift(clips, [frames], np.array([-1.0]))
    expected = {2: [-1, -1, 1, 2, 3], -2: [3, 4, 5, -1, -1], 0: [1, 2, 3, 4, 5]}[frames]
    assert moved.ravel().tolist() == expected
