"""The file's ending selects the format. A contradiction is an error, and nothing is written."""

import pathlib

import pytest
from models import make

import keras_trim
from keras_trim.exporters.formats import ENDINGS, format_of

PAIRS = [(ending, name) for name, endings in ENDINGS.items() for ending in endings]


@pytest.mark.parametrize(("ending", "format"), PAIRS)
def test_endings(ending, format):
    assert format_of(f"folder.onnx/model{ending}") == format
    assert format_of(pathlib.Path(f"model{ending.upper()}")) == format
    assert format_of(f"model{ending}", format) == format
    for other in ENDINGS:
        if other != format:
            message = (
                f"has the ending of {format} files.*Received: path=model{ending}, format='{other}'"
            )
            with pytest.raises(ValueError, match=message):
                format_of(f"model{ending}", other)


@pytest.mark.parametrize("format", ENDINGS)
def test_files_of_other_kinds(format):
    for ending in (".keras", ".ktrim", ".engine", ".h5", ".bin"):
        with pytest.raises(ValueError, match=rf"For {format} files: \.\w+"):
            format_of(f"model{ending}", format)


def test_a_name_that_says_nothing():
    assert format_of("model", "onnx") == "onnx"
    assert format_of("model.v2", "litert") == "litert"
    with pytest.raises(ValueError, match=r"\.tflite, \.litert, \.onnx, \.xml, \.safetensors"):
        format_of("model")


def test_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="has the ending of onnx files"):
        keras_trim.export(make("mlp"), tmp_path / "a.onnx", format="safetensors")
    assert list(tmp_path.iterdir()) == []
    keras_trim.export(make("mlp"), tmp_path / "a.safetensors")
    assert keras_trim.exporters.format_of(tmp_path / "a.safetensors") == "safetensors"
