"""Loads and saves model files."""

import importlib
import importlib.util
import pathlib
import re
import sys
import zipfile

from keras_trim_cli import backend, files, streams
from keras_trim_cli.errors import CommandError, one_line, system_error

FORMATS = {".keras": "keras", ".h5": "h5", ".hdf5": "h5", ".ktrim": "ktrim"}

# Keras's error messages for unknown objects in `.keras` and `.h5` files.
_UNKNOWN = r"(?:Could not locate (?:class|function)|Unknown [\w ]+:) '?([\w>.]+)'?"


def format_of(path):
    """The format of a file, by its ending.

    Args:
        path: `pathlib.Path`.

    Returns:
        `"keras"`, `"h5"` or `"ktrim"`.

    Raises:
        CommandError: for any other ending.
    """
    if path.name.lower().endswith(".weights.h5"):
        raise CommandError(
            f"{path} holds weights without a model: load them into the model that they belong to, "
            "and save that as .keras"
        )
    if path.suffix == ".engine":
        raise CommandError(
            f"{path} holds an engine, which `keras-trim bench` runs: otherwise, give the model "
            "that it was made of"
        )
    try:
        return FORMATS[path.suffix]
    except KeyError:
        raise CommandError(
            f"{path} is of no known type: models are read from .keras, .h5 and .ktrim files, "
            "in lower case"
        ) from None


def load(path, imports=(), compile=True):
    """Loads a model. Call it within `silenced()`.

    Args:
        path: `pathlib.Path` of a .keras, .h5 or .ktrim file.
        imports: List of strings: modules, or .py files, that define custom layers and losses.
        compile: Boolean. Whether to restore optimizer, loss and metrics.

    Returns:
        `keras.Model`.

    Raises:
        CommandError: if the file does not hold a model, or uses unknown objects.
    """
    kind = format_of(path)
    with streams.progress(f"loading {path.name}"):
        keras_trim = backend.start()
        show_progress()
        objects = custom_objects(imports)
        import keras

        read = keras_trim.load if kind == "ktrim" else keras.models.load_model
        try:
            return read(path, custom_objects=objects, compile=compile)
        except Exception as error:
            if streams.debugging():
                raise
            why = _why(path, kind, error)
            # What fails may be the optimizer, a loss or a metric: tries again without.
            if compile and _is_read(read, path, objects):
                why += "; or leave optimizer, loss and metrics out by --no-compile"
            raise CommandError(why) from error


def show_progress():
    """Makes the library show its progress on this command's stream, which is not silenced."""
    from keras_trim import progress

    progress.stream = streams.err


def _is_read(read, path, objects):
    """Whether a model loads without being compiled."""
    try:
        read(path, custom_objects=objects, compile=False)
    except Exception:
        return False
    return True


def custom_objects(imports):
    """The public classes and functions of modules, by name.

    Args:
        imports: List of strings, `package.module` or `path/to/file.py`.
    """
    objects = {}
    for name in imports:
        objects.update(
            (key, value)
            for key, value in vars(_import(name)).items()
            if callable(value) and not key.startswith("_")
        )
    return objects


def _import(name):
    # Finds modules in the current folder, as `python -m` does.
    if "" not in sys.path and str(pathlib.Path.cwd()) not in sys.path:
        sys.path.insert(0, str(pathlib.Path.cwd()))
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        path = pathlib.Path(name)
        # For the process in which `export` converts. Last, so as not to hide standard modules.
        sys.path.append(str(path.resolve().parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:  # a script may end, for want of its own arguments
        if streams.debugging():
            raise
        raise CommandError(
            f"cannot import {name}: {one_line(f'{type(error).__name__}: {error}')}"
        ) from error


def _why(path, kind, error):
    """A sentence that says why loading failed, and what to do."""
    text = str(error)
    unknown = re.search(_UNKNOWN, text)
    if unknown:
        return (
            f"{path} uses the custom object '{unknown[1]}', which Keras does not know: name the "
            "module or .py file that defines it with --import"
        )
    if "ambda" in text and ("safe_mode" in text or "unsafe" in text):
        return (
            f"{path} holds a Lambda layer, that is Python code, which is not run here: replace it "
            "by a layer of a module given to --import"
        )
    if kind == "keras" and not zipfile.is_zipfile(path):
        return f"{path} is no .keras archive, or was cut short"
    if kind == "h5" and "model config" in text:
        return f"{path} holds weights without a model"
    reason = system_error(error) or one_line(text) or type(error).__name__
    return f"cannot load {path}: {reason}"


def check_saved_format(path):
    """Checks that the file's ending is that of a model format.

    Raises:
        CommandError: if it is not.
    """
    if path.name.lower().endswith(".weights.h5") or path.suffix not in FORMATS:
        raise CommandError(
            f"{path} is of no known type: models are written to .keras, .h5 and .ktrim files, "
            "in lower case"
        )


def leaves_optimizer_out(model, path, optimizer=False):
    """Returns whether `save` with these arguments leaves out an optimizer's state."""
    variables = getattr(getattr(model, "optimizer", None), "variables", None)
    return format_of(path) == "ktrim" and not optimizer and bool(variables)


def save(model, path, values=None, optimizer=False):
    """Writes a model in the format of the file's ending. Call it within `silenced()`.

    Args:
        model: `keras.Model`.
        path: `pathlib.Path`. Only a complete file replaces an existing one.
        values: As in `keras_trim.save`; `.ktrim` files only.
        optimizer: Boolean. Whether a `.ktrim` file keeps the optimizer's state.

    Returns:
        The result of `keras_trim.save` for a `.ktrim` file, else `None`.
    """
    with streams.progress(f"writing {path.name}"):
        if format_of(path) != "ktrim":
            with files.replacing(path) as temporary:
                return model.save(temporary)
        import keras_trim

        with files.writing(path):
            return keras_trim.save(model, path, values=values, include_optimizer=optimizer)
