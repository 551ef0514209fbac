"""Running a converter under the Keras backend that it needs.

A Keras process has one backend for life. Where it is the converter's, the converter runs in this
process, which knows the user's own classes; else in another one, which loads the model from a
temporary file.
"""

import json
import os
import subprocess
import sys
import tempfile

import keras

from keras_trim.exporters import conversion_worker


def convert(model, converter, **options):
    """Runs `convert(model, **options)` of a module under the backend that it needs.

    Args:
        model: Keras model that is built.
        converter: The module, which names its `BACKEND`.
        **options: What JSON can hold.

    Returns:
        Tuple of the bytes of the file and a dict of facts about it.

    Raises:
        ImportError: if a package of the converter cannot be imported there.
        ValueError: if it cannot convert the model.
    """
    if keras.backend.backend() == converter.BACKEND:
        return converter.convert(model, **options)
    with tempfile.TemporaryDirectory(prefix="keras_trim_") as folder:
        model.save(os.path.join(folder, conversion_worker.MODEL))
        job = {
            "converter": converter.__name__,
            "options": options,
            "classes": _own_classes(model),
            "name": model.name,
            "folder": folder,
        }
        environment = {
            **os.environ,
            "KERAS_BACKEND": converter.BACKEND,
            # The worker may not take the accelerator's memory from under this process.
            "CUDA_VISIBLE_DEVICES": "",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        process = subprocess.run(
            [sys.executable, "-m", conversion_worker.__name__],
            input=json.dumps(job),
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        result = _read_result(folder)
        if result is None:
            lines = process.stderr.strip().splitlines() or ["it printed nothing"]
            raise ValueError(
                f"The process that converts the model ended early, with exit code "
                f"{process.returncode}: {lines[-1][:300]}. Received: model={model.name}"
            )
        if "error" in result:
            error = ImportError if result["error"] == "ImportError" else ValueError
            raise error(result["message"])
        with open(os.path.join(folder, conversion_worker.OUTPUT), "rb") as file:
            return file.read(), result["facts"]


def _own_classes(model):
    """The classes of layers that are not Keras's, as pairs of a module and a name in it."""
    classes = {type(layer) for layer in (model, *model._flatten_layers())}
    pairs = {(own.__module__, own.__qualname__) for own in classes}
    return sorted(pair for pair in pairs if pair[0].split(".")[0] != "keras")


def _read_result(folder):
    try:
        with open(os.path.join(folder, conversion_worker.RESULT), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None
