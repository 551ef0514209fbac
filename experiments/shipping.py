"""Exports a model, scores the reloaded file, and measures its size and latency."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np

import keras_trim
from keras_trim.policies import candidates


def ship(task, model, path, dense_layer=None):
    """Saves a model as `.ktrim`, loads the file, and scores the loaded model.

    Args:
        task: `experiments.task.Task`.
        model: Keras model without pruning state (stripped).
        path: `pathlib.Path` of the file.
        dense_layer: String. Name of a layer that stays dense, or `None`.

    Returns:
        Dict with the scores, the counts of zeros, and the size of the file in bytes.

    Raises:
        AssertionError: If the loaded model's outputs differ from the model's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    keras_trim.save(model, path)
    x = task.examples()
    expected = model.predict(x, verbose=0)
    keras.backend.clear_session()
    loaded = keras_trim.load(path)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
    found = count_zeros(loaded, dense_layer) | {"ktrim_bytes": path.stat().st_size}
    return found | task.report(loaded)


def count_zeros(model, dense_layer=None):
    """Counts the zeros in the pruned weights of a model.

    Args:
        model: Keras model.
        dense_layer: String. Name of a layer that stays dense, or `None`.

    Returns:
        Dict of integers: `pruned_weights`, the number of pruned weights; `zeros`, the zeros among
        them; `weights`, the number of all weights.
    """
    pruned = [
        keras.ops.convert_to_numpy(candidate.variable)
        for candidate in candidates(model)
        if candidate.reason is None and candidate.layer.name != dense_layer
    ]
    return {
        "pruned_weights": sum(values.size for values in pruned),
        "zeros": sum(int(np.count_nonzero(values == 0)) for values in pruned),
        "weights": model.count_params(),
    }


def litert_bytes(path):
    """Returns the size in bytes of a `.ktrim` file's model as a (sparse) LiteRT file."""
    model = keras_trim.load(path)
    with tempfile.TemporaryDirectory() as folder:
        return keras_trim.export(model, pathlib.Path(folder, "model.tflite")).num_bytes


def milliseconds(path, seconds=4.0):
    """Times a `.ktrim` file in the engine, LiteRT and ONNX Runtime, which take turns.

    The engine skips the zeros; LiteRT and ONNX Runtime compute with them.

    Returns:
        Dict: runtime -> median milliseconds at batch size 1 on one thread.
    """
    command = [sys.executable, "-m", "keras_trim_cli", "bench", str(path), "--json"]
    command += ["--against", "litert,onnxruntime", "--seconds", str(seconds)]
    environment = os.environ | {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)["milliseconds"]
