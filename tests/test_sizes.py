import re
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_trim
from keras_trim.sizes import SizeRow, SizeTable


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((64,)), layers.Dense(400), layers.Dense(100)])
    return keras_trim.prune(model, 0.9)


def test_sizes(model):
    table = keras_trim.size_table(model, ("raw", "h5", "gzip", "ktrim", "int8"))
    assert [row.format for row in table.rows] == ["raw", "h5", "gzip", "ktrim", "int8"]
    raw, h5, gzipped, ktrim, int8 = (row.num_bytes for row in table.rows)
    assert raw == 4 * model.count_params()
    assert h5 > raw > gzipped > 1.25 * ktrim > 1.25 * int8
    assert table["ktrim"].factor == raw / ktrim
    text = str(table)
    assert f"{ktrim:,}" in text
    assert f"{raw / ktrim:.1f}" in text
    assert not table.left_out
    with pytest.raises(KeyError, match="litert"):
        table["litert"]


def test_the_optimizer_is_not_counted(model):
    sizes = [row.num_bytes for row in keras_trim.size_table(model, ("raw", "h5", "ktrim")).rows]
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    compiled = [row.num_bytes for row in keras_trim.size_table(model, ("raw", "h5", "ktrim")).rows]
    assert compiled[:2] == sizes[:2]
    assert compiled[2] < sizes[2] + 600


def test_litert_is_measured_or_left_out_with_a_reason(model, monkeypatch):
    def write(model, path, format):
        path.write_bytes(b"x" * 1000)

    monkeypatch.setattr(keras_trim.exporters, "export", write)
    assert keras_trim.size_table(model, ("litert",))["litert"].num_bytes == 1000

    def fail(model, path, format):
        raise ImportError('LiteRT files need pip install "keras-trim[litert]"')

    monkeypatch.setattr(keras_trim.exporters, "export", fail)
    table = keras_trim.size_table(model, ("raw", "litert"))
    assert [row.format for row in table.rows] == ["raw"]
    assert 'left out: LiteRT files need pip install "keras-trim[litert]"' in str(table)


class Calling(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.dense = layers.Dense(4)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.function(self.dense(x))


def test_a_model_that_cannot_be_saved_is_left_out_with_the_reason():
    model = keras.Sequential([keras.Input((8,)), Calling(lambda x: x * 2)])
    table = keras_trim.size_table(model, ("raw", "h5", "ktrim"))
    assert [row.format for row in table.rows] == ["raw", "h5"]
    assert "non-serializable" in table.left_out["ktrim"]


def test_warnings_about_the_use_of_a_file_stay_away(model, monkeypatch):
    def write(model, path, format):
        warnings.warn(f"{path}: the file takes one example at a time", stacklevel=2)
        path.write_bytes(b"x")

    monkeypatch.setattr(keras_trim.exporters, "export", write)
    keras_trim.size_table(model, ("litert",))  # the suite makes errors of warnings


def test_factors_have_one_form():
    rows = [SizeRow("h5", "file", 1, factor) for factor in (1.04, 0.998, 0.44)]
    lines = str(SizeTable(rows, {})).splitlines()
    assert [line.split()[-1] for line in lines if "file" in line] == ["1.0", "1.0", "0.44"]


def test_wrong_arguments(model):
    with pytest.raises(ValueError, match="'litert'. Received: formats=\\('zip',\\)"):
        keras_trim.size_table(model, ("zip",))
    for wrong in ("raw", None, 3, [["raw"]]):
        with pytest.raises(
            ValueError, match=f"a sequence of.*Received: formats={re.escape(repr(wrong))}"
        ):
            keras_trim.size_table(model, wrong)
    with pytest.raises(ValueError, match="no weights yet"):
        keras_trim.size_table(keras.Sequential([layers.Dense(1)]))


def test_without_zstandard(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ImportError, match='pip install "keras-trim\\[storage\\]"'):
        keras_trim.save(model, tmp_path / "model.ktrim")
    assert list(tmp_path.iterdir()) == []
    np.savez(tmp_path / "model.ktrim")
    with pytest.raises(ImportError, match='pip install "keras-trim\\[storage\\]"'):
        keras_trim.load(tmp_path / "model.ktrim")


def test_sizes_without_zstandard(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    table = keras_trim.size_table(model, ("raw", "h5", "ktrim", "int8"))
    assert [row.format for row in table.rows] == ["raw", "h5"]
    assert list(table.left_out) == ["ktrim", "int8"]
    assert '.ktrim left out: .ktrim files need Zstandard: pip install "keras-trim[sto' in str(table)
