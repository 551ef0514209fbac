"""The process that `conversion.convert` starts: reads a job, loads the model, converts it."""

import importlib
import json
import os
import re
import sys

MODEL, OUTPUT, RESULT = "model.keras", "output", "result.json"


def main():
    job = json.load(sys.stdin)
    folder = job["folder"]
    try:
        model = _load(os.path.join(folder, MODEL), job["classes"], job["name"])
        converter = importlib.import_module(job["converter"])
        data, facts = converter.convert(model, **job["options"])
        with open(os.path.join(folder, OUTPUT), "wb") as file:
            file.write(data)
        result = {"facts": facts}
    except ImportError as error:
        result = {"error": "ImportError", "message": str(error)}
    except ValueError as error:
        result = {"error": "ValueError", "message": str(error)}
    except Exception as error:  # converters raise whatever they do
        message = (
            f"The model cannot be converted: {type(error).__name__}: {_reason(error)}. "
            f"Received: model={job['name']}"
        )
        result = {"error": "ValueError", "message": message}
    with open(os.path.join(folder, RESULT), "w", encoding="utf-8") as file:
        json.dump(result, file)


def _load(path, classes, name):
    import keras

    custom_objects = dict(_import_class(*own) for own in classes)
    custom_objects.pop(None, None)
    try:
        # The file is this user's own model, written a moment ago: its Lambda layers are safe.
        return keras.models.load_model(path, custom_objects, compile=False, safe_mode=False)
    except Exception as error:
        backend = keras.backend.backend()
        raise ValueError(
            f"The model must be converted in a process with the {backend} backend, which cannot "
            f"load it: {_reason(error)}. Put its own classes into a module that Python can "
            f"import (not a notebook or `__main__`), or run your program with "
            f"KERAS_BACKEND={backend}. Received: model={name}"
        ) from error


def _import_class(module, name):
    """A pair of the name and the class, or of `None`s if it cannot be imported."""
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None, None
    return found.__name__, found


def _reason(error):
    """The sentence of a long message that says what is missing."""
    missing = re.search(r"Could not (locate|find) [^\n.]*", str(error))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    sentence = missing[0] if missing else lines[0] if lines else type(error).__name__
    return sentence.rstrip(".")[:300]


if __name__ == "__main__":
    main()
