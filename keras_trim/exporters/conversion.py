"""Runs a converter under the Keras backend that it needs.

A process can only use one Keras backend. If that is the converter's, the converter runs here, where
the user's own classes are known. Otherwise it runs in another process, which loads the model from a
temporary file. The outputs that the model returned here are sent along.
"""

import json
import os
import tempfile

import keras

from keras_trim.exporters import conversion_worker
from keras_trim.exporters.verification import Converted, FileDiffersError


def convert(prepared, converter, cases, **options):
    """Runs `convert(model, cases, **options)` of a module under the backend that it needs.

    Args:
        prepared: `Prepared`.
        converter: The module. It declares its `BACKEND` and its `RUNTIME`.
        cases: List of `Case` to verify the file with.
        **options: Values that JSON can hold, and lists of `Case`.

    Returns:
        `Converted`.

    Raises:
        FileDiffersError: if the file's outputs differ from the model's.
        ImportError: if a package of the converter cannot be imported there.
        ValueError: if it cannot convert the model.
    """
    return _run(prepared, converter, "convert", cases, options)


def trial(prepared, converter, cases):
    """Runs `trial(model, cases)` in the same way, and returns a file's outputs unverified.

    Returns:
        List of lists of arrays, one per case.
    """
    return _run(prepared, converter, "trial", cases, {})


def _run(prepared, converter, task, cases, options):
    model = prepared.model
    if keras.backend.backend() == converter.BACKEND:
        return getattr(converter, task)(model, cases, **options)
    with tempfile.TemporaryDirectory(prefix="keras_trim_") as folder:
        model.save(os.path.join(folder, conversion_worker.MODEL))
        options = conversion_worker.store_cases(folder, {"cases": cases, **options})
        job = {
            "converter": converter.__name__,
            "task": task,
            "options": options,
            "classes": _own_classes(model),
            "name": prepared.source.name,
            "folder": folder,
        }
        # What it leaves in the temporary folder if it is killed is removed with this one.
        process = conversion_worker.run(
            conversion_worker.__name__, job, converter.BACKEND, TMPDIR=folder
        )
        result = _read_result(folder)
        if result is None:
            lines = process.stderr.strip().splitlines() or ["it printed nothing"]
            raise ValueError(
                f"The process that converts the model ended early with exit code "
                f"{process.returncode}: {lines[-1][:300]}. Received: model={prepared.source.name}"
            )
        return _result(result, folder, cases)


def _result(result, folder, cases):
    if result["kind"] == "FileDiffersError":
        case = next(case for case in cases if case.name == result["case"])
        raise FileDiffersError(result["runtime"], case, float(result["difference"]))
    if result["kind"] != "result":
        raise (ImportError if result["kind"] == "ImportError" else ValueError)(result["message"])
    if "outputs" in result:
        return conversion_worker.load_arrays(folder, result["outputs"])
    files = {}
    for ending in result["endings"]:
        with open(os.path.join(folder, conversion_worker.OUTPUT + ending), "rb") as file:
            files[ending] = file.read()
    return Converted(files[""] if list(files) == [""] else files, **result["facts"])


def _own_classes(model):
    """Lists the classes of layers outside Keras, as pairs of a module and a name in it."""
    classes = {type(layer) for layer in (model, *model._flatten_layers())}
    pairs = {(own.__module__, own.__qualname__) for own in classes}
    return sorted(pair for pair in pairs if pair[0].split(".")[0] != "keras")


def _read_result(folder):
    try:
        with open(os.path.join(folder, conversion_worker.RESULT), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None
