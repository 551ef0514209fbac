"""Helpers for tests of the command line."""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import keras
from typer.testing import CliRunner

import keras_trim
from keras_trim_cli.app import app

ROOT = pathlib.Path(__file__).parents[2]


def run(*arguments, code=0):
    """Runs a command in this process and checks its exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def run_json(*arguments, code=0):
    """Runs a command with --json. Standard output must contain nothing else."""
    return json.loads(run(*arguments, "--json", code=code).stdout)


def error_of(*arguments, code=1):
    """Returns the single line that a command fails with."""
    result = run(*arguments, code=code)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def start(*arguments, module="keras_trim_cli", before=(), **kwargs):
    """Starts a command as a separate process, prefixed by the words in `before`."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": keras.backend.backend(),
        "PYTHONPATH": str(ROOT),
        **kwargs.pop("env", {}),
    }
    for name in ("GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS", "TF_CPP_MIN_LOG_LEVEL"):
        environment.pop(name, None)
    return subprocess.Popen(
        [*before, sys.executable, "-m", module, *map(str, arguments)],
        env=environment,
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs},
    )


def finish(process):
    """Waits for a process. Returns exit code, standard output and standard error."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def fill(folder):
    """Writes model files to a folder: `dense`, `pruned` to 75 %, and `pruned.ktrim`."""
    for path in _made().iterdir():
        shutil.copy(path, folder)
    return folder


@functools.cache
def _made():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="keras-trim-test-"))
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(8, 3, strides=2, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, name="out"),
        ],
        name="small",
    )
    model.compile("sgd", keras.losses.MeanSquaredError())
    model.save(folder / "dense.keras")
    keras_trim.prune(model, 0.75)
    model.save(folder / "pruned.keras")
    keras_trim.save(model, folder / "pruned.ktrim")
    # This comes last: saving as .h5 makes Keras forget the optimizer of the compiled model.
    keras.models.load_model(folder / "dense.keras").save(folder / "dense.h5")
    return folder
