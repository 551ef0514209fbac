"""Compressed `.keras` archives, read by Keras alone."""

import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

import keras_trim

READ = """
import sys
sys.modules["keras_trim"] = sys.modules["zstandard"] = None  # not installed
import keras, numpy as np
model = keras.models.load_model("model.keras")
x = np.load("x.npy")
np.testing.assert_array_equal(model.predict(x, verbose=0), np.load("y.npy"))
print(int(model.optimizer.iterations.value))
"""


@pytest.fixture
def path(tmp_path):
    model = keras.Sequential([keras.Input((32,)), layers.Dense(500), layers.Dense(50)])
    keras_trim.prune(model, 0.8)
    x = np.random.default_rng(0).random((16, 32)).astype("float32")
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(7)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", model.predict(x, verbose=0))
    return tmp_path / "model.keras"


@pytest.mark.slow
def test_keras_reads_it_without_keras_trim(path):
    before = path.read_bytes()
    result = keras_trim.compress_keras(path)
    assert result.old_bytes == len(before)
    assert result.new_bytes == path.stat().st_size < len(before) / 3.4
    assert f"{result.new_bytes:,} bytes instead of {result.old_bytes:,}" in str(result)
    done = subprocess.run(
        [sys.executable, "-c", READ], cwd=path.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["7"]
    assert keras_trim.compress_keras(path).new_bytes == result.new_bytes  # nothing left to gain


def test_the_files_in_it_are_the_same(path, tmp_path):
    output = tmp_path / "new.keras"
    before = path.read_bytes()
    keras_trim.compress_keras(path, output)
    assert path.read_bytes() == before
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(output) as new:
        assert old.namelist() == new.namelist()
        assert all(old.read(name) == new.read(name) for name in old.namelist())


def test_without_bzip2(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bz2", None)
    keras_trim.compress_keras(path)
    with zipfile.ZipFile(path) as archive:
        methods = {member.compress_type for member in archive.infolist()}
    assert methods <= {zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED}


def test_what_is_no_keras_archive(path, tmp_path):
    (tmp_path / "text.keras").write_text("no")
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("a", "b")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.keras").write_bytes(damaged)
    methods = {"bzip2.keras": zipfile.ZIP_BZIP2, "lzma.keras": zipfile.ZIP_LZMA}
    for name, method in methods.items():
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            archive.writestr("config.json", bytes(range(256)) * 4)
        damaged = bytearray((tmp_path / name).read_bytes())
        damaged[60:90] = bytes(30)
        (tmp_path / name).write_bytes(damaged)
    encrypted = bytearray(path.read_bytes())
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1  # the flag in the directory
    (tmp_path / "encrypted.keras").write_bytes(encrypted)
    for name in ("text.keras", "zip.keras", "damaged.keras", "encrypted.keras", *methods):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match=f"not a `.keras` archive.*Received: .*{name}"):
            keras_trim.compress_keras(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(FileNotFoundError):
        keras_trim.compress_keras(tmp_path / "missing.keras")
    with pytest.raises(ValueError, match="`path` must end in `.keras`.*Received: path=m.ktrim"):
        keras_trim.compress_keras("m.ktrim")
    with pytest.raises(ValueError, match="`output` must end in `.keras`.*Received: output="):
        keras_trim.compress_keras(path, tmp_path / "new.zip")
    with pytest.raises(ValueError, match="`path` must be the path of.*Received: path=None"):
        keras_trim.compress_keras(None)
    assert not [*tmp_path.glob(".*")]
