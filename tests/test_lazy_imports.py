"""`import keras_trim` imports what training needs. The rest is imported on first use."""

import os
import subprocess
import sys

import keras
import pytest

import keras_trim

PROGRAM = """
import sys, keras_trim
print(*[name for name in sys.modules if name.startswith("keras_trim.")])
"""


@pytest.mark.usefixtures("one_backend")
def test_import_leaves_out_what_training_does_not_need():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = done.stdout.split()
    assert "keras_trim.optimizer" in imported
    for package in ("checkpoints", "exporters", "inference", "one_shot", "plots", "storage"):
        assert f"keras_trim.{package}" not in imported


@pytest.mark.parametrize("name", keras_trim.__all__)
def test_every_public_name_is_there(name):
    assert getattr(keras_trim, name).__name__ == name
    assert getattr(keras_trim, name) is getattr(keras_trim, name)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match=r"module 'keras_trim' has no attribute 'Prune'"):
        keras_trim.Prune  # noqa: B018
