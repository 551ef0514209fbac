"""The process that `conversion.convert` starts: reads a job, loads the model and converts it."""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys

import numpy as np

MODEL, OUTPUT, RESULT = "model.keras", "output", "result.json"


def run(module, job, backend, **variables):
    """Runs a module in a process of its own, which imports from where this one does.

    Args:
        module: String. It reads `job` as JSON from standard input.
        job: Values that JSON can hold.
        backend: String. The Keras backend of the process.
        **variables: Strings. More environment variables.

    Returns:
        `subprocess.CompletedProcess`.

    Raises:
        ValueError: if this program is frozen, since it would start itself.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        raise ValueError(
            "The model must be converted in a process of its own, which a frozen or embedded "
            "program cannot start. Export the model by a program that Python runs. "
            f"Received: sys.executable={sys.executable!r}"
        )
    return subprocess.run(
        # Without -P, modules of the current folder could hide those of the standard library.
        [sys.executable, "-P", "-m", module],
        input=json.dumps(job),
        env={**_environment(backend), **variables},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _environment(backend):
    return {
        **os.environ,
        "KERAS_BACKEND": backend,
        # Keep the worker from taking the accelerator's memory away from this process.
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        # Python ignores entries that are no strings, such as a `pathlib.Path`.
        "PYTHONPATH": os.pathsep.join(
            entry or os.getcwd() for entry in sys.path if isinstance(entry, str)
        ),
        "PYTHONIOENCODING": "utf-8",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def main():
    job = json.load(sys.stdin)
    folder = job["folder"]
    try:
        model = _load(os.path.join(folder, MODEL), job["classes"], job["name"])
        converter = importlib.import_module(job["converter"])
        made = getattr(converter, job["task"])(model, **load_cases(folder, job["options"]))
        result = {"kind": "result", **_store(made, folder)}
    except ImportError as error:
        result = {"kind": "ImportError", "message": str(error)}
    except ValueError as error:
        result = {"kind": "ValueError", "message": str(error)}
        if type(error).__name__ == "FileDiffersError":
            result = {
                "kind": "FileDiffersError",
                "case": error.case.name,
                "difference": str(error.difference),
                "runtime": error.runtime,
            }
    except Exception as error:  # converters may raise anything
        message = (
            f"The model cannot be converted: {type(error).__name__}: {_reason(error)}. "
            f"Received: model={job['name']}"
        )
        result = {"kind": "ValueError", "message": message}
    with open(os.path.join(folder, RESULT), "w", encoding="utf-8") as file:
        json.dump(result, file)


def _store(made, folder):
    if isinstance(made, list):
        return {"outputs": store_arrays(folder, made, "outputs")}
    files = made.data if isinstance(made.data, dict) else {"": made.data}
    for ending, data in files.items():
        with open(os.path.join(folder, OUTPUT + ending), "wb") as file:
            file.write(data)
    facts = {
        field.name: getattr(made, field.name)
        for field in dataclasses.fields(made)
        if field.name != "data"
    }
    return {"endings": list(files), "facts": facts}


def store_arrays(folder, lists, name):
    """Writes lists of arrays to a folder. Returns a description for `load_arrays`."""
    flat = {f"{i}_{j}": array for i, arrays in enumerate(lists) for j, array in enumerate(arrays)}
    np.savez(os.path.join(folder, f"{name}.npz"), **flat)
    return {"name": name, "counts": [len(arrays) for arrays in lists]}


def load_arrays(folder, stored):
    with np.load(os.path.join(folder, f"{stored['name']}.npz"), allow_pickle=False) as file:
        return [
            [file[f"{i}_{j}"] for j in range(count)] for i, count in enumerate(stored["counts"])
        ]


def store_cases(folder, options):
    """Replaces lists of `Case` in the options by files."""
    stored = {}
    for key, value in options.items():
        if isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
            stored[key] = {
                "names": [case.name for case in value],
                "inputs": store_arrays(folder, [case.inputs for case in value], f"{key}_inputs"),
                "outputs": store_arrays(folder, [case.outputs for case in value], f"{key}_outputs"),
            }
        else:
            stored[key] = value
    return stored


def load_cases(folder, options):
    """Inverts `store_cases`."""
    from keras_trim.exporters.cases import Case

    loaded = {}
    for key, value in options.items():
        if isinstance(value, dict) and "names" in value:
            arrays = (load_arrays(folder, value[part]) for part in ("inputs", "outputs"))
            value = [Case(*parts) for parts in zip(value["names"], *arrays, strict=True)]
        loaded[key] = value
    return loaded


def _load(path, classes, name):
    import keras

    custom_objects = dict(_import_class(*own) for own in classes)
    custom_objects.pop(None, None)
    try:
        # The file is this user's model, written moments ago, so its Lambda layers are safe.
        model = keras.models.load_model(path, custom_objects, compile=False, safe_mode=False)
        if not getattr(model, "inputs", None):  # Keras leaves a Sequential model unbuilt
            raise ValueError(
                "a layer cannot be called there, such as a Lambda that uses names of your program"
            )
        return model
    except Exception as error:
        backend = keras.backend.backend()
        raise ValueError(
            f"The model must be converted in a process with the {backend} backend, which cannot "
            f"load it: {_reason(error)}. Move its own classes and functions to a module that "
            "Python can import (not a notebook or `__main__`), or run your program with "
            f"KERAS_BACKEND={backend}. Received: model={name}"
        ) from error


def _import_class(module, name):
    """Returns the name and the class, or two `None`s if it cannot be imported."""
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None, None
    return found.__name__, found


def _reason(error):
    """Returns the sentence of a long message that says what is missing."""
    missing = re.search(r"Could not (locate|find) [^\n.]*", str(error))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    sentence = missing[0] if missing else lines[0] if lines else type(error).__name__
    return sentence.rstrip(".")[:300]


if __name__ == "__main__":
    main()
