"""What is shipped: the exported file, read again and tested; its size; its milliseconds."""

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
    """Writes a model as `.ktrim` and tests what is read from the file.

    Args:
        task: `experiments.task.Task`.
        model: Keras model, stripped.
        path: `pathlib.Path` of the file.

    Returns:
        Dict: scores, zeros and bytes.

    Raises:
        ValueError: if the file does not return what the model does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    keras_trim.save(model, path)
    x = task.examples()
    before = model.predict(x, verbose=0)
    keras.backend.clear_session()
    loaded = keras_trim.load(path)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), before, rtol=1e-4, atol=1e-5)
    found = count_zeros(loaded, dense_layer) | {"ktrim_bytes": path.stat().st_size}
    return found | task.report(loaded)


def count_zeros(model, dense_layer=None):
    """Counts zeros in the weights that are pruned.

    Args:
        model: Keras model.
        dense_layer: String. Name of a layer that stays dense, or `None`.

    Returns:
        Dict: `pruned_weights`, their number; `zeros` among them; `weights`, the number of all.
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
    """Integer: bytes of the LiteRT file of a `.ktrim` file; zeros are stored sparsely in both."""
    model = keras_trim.load(path)
    with tempfile.TemporaryDirectory() as folder:
        return keras_trim.export(model, pathlib.Path(folder, "model.tflite")).num_bytes


def milliseconds(path, seconds=4.0):
    """Dict: runtime -> median milliseconds at batch 1 on one thread, timed in turns.

    Each runs the file at `path`: the engine skips its zeros, LiteRT and ONNX Runtime do not.
    """
    command = [sys.executable, "-m", "keras_trim_cli", "bench", str(path), "--json"]
    command += ["--against", "litert,onnxruntime", "--seconds", str(seconds)]
    environment = os.environ | {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)["milliseconds"]
