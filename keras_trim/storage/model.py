"""Saves a Keras model to a file and loads it back."""

import contextlib
import json
import os
import warnings
from collections.abc import Mapping
from typing import Any, BinaryIO

import keras
import numpy as np
from keras import saving
from keras.src.saving.serialization_lib import ObjectSharingScope

from keras_trim import hosts
from keras_trim.arguments import check_model, takes_named
from keras_trim.storage import assets, quantization
from keras_trim.storage.arrays import check_suffix, metadata
from keras_trim.storage.building import build, check_layers
from keras_trim.storage.errors import FormatError
from keras_trim.storage.model_state import (
    HAS_OPTIMIZER,
    SEEDS,
    load_state,
    optimizers_of,
    save_state,
    saved_names,
    seeds,
)
from keras_trim.storage.reader import FREE_BYTES, Reader
from keras_trim.storage.result import SavedArray, SaveResult
from keras_trim.storage.writer import Writer

_CONFIG = "config.json"
# Memory that JSON takes at worst: `{},{},` becomes dicts, of which building a model makes copies.
_BYTES_PER_CHARACTER = 64


@takes_named
def save(
    model: keras.Model,
    path: str | os.PathLike[str],
    values: str | None = None,
    include_optimizer: bool = False,
) -> SaveResult:
    """Saves a model as a small file: weights, structure and how it was compiled.

    Zeros cost almost nothing, wherever they are, and the other values are compressed. By default
    nothing is lost: `load` restores every weight bit for bit. Each layer saves what it saves in a
    `.keras` file. For example, a layer with LoRA saves its kernel with LoRA added.

    Args:
        model: Built Keras model.
        path: Path. It must end in `.ktrim`. An existing file is replaced once the new one is
            complete.
        values: String or `None`. `None` keeps all values as they are. `"float16"`, `"bfloat16"` and
            `"int8"` round kernels and embeddings (floats of rank two or more); `"int8"` scales each
            output channel. Zeros stay zero. Biases, statistics and the like stay exact, as do
            weights with values that are not finite or out of range.
        include_optimizer: Boolean. Whether to save the optimizer's state (steps, momenta), which
            takes as much as one or two dense copies of the weights. Without it, the loaded
            optimizer has its configuration but starts afresh.

    Returns:
        `SaveResult`. `print` it for the size and, if `values` is given, the largest error.
        `.arrays` lists both per weight.

    Raises:
        ValueError: if an argument is invalid, the model is not built, or it has so many layers
            without weights that `load` would refuse the file.
        OSError: if the file cannot be written. An existing file is left unchanged.
        ImportError: if `zstandard` is not installed.

    Example:

    ```python
    keras_trim.save(model, "model.ktrim")
    model = keras_trim.load("model.ktrim")
    print(keras_trim.save(model, "small.ktrim", values="int8"))
    ```
    """
    path = check_suffix(path)
    quantization.check_kind(values)
    check_model(model)
    if not include_optimizer:
        _warn_of_lost_masks(model)
    return write(model, path, values, include_optimizer)


def write(model, path, values, include_optimizer):
    """Implements `save` for arguments that have been checked."""
    config = _structure(model)
    rows = []
    # Values of optimizers are never rounded. What is saved without them is the model's own.
    own = saved_names(model) if values and include_optimizer else None
    shared = any(hosts.is_shared(variable.value) for variable in model.variables)
    opened = hosts.replace_shared_file(path, shared)
    whole = hosts.whole_variables() if shared else contextlib.nullcontext()
    with whole, opened as file, assets.collecting() as (assets_store, asset_files):
        writer = Writer(file)

        def write_row(name, array):
            kind = values if own is None or name in own else None
            rows.append(_write(writer, name, array, kind))

        save_state(model, write_row, assets_store, include_optimizer)
        for index, variable in enumerate(seeds(model)):
            writer.write_array(f"{SEEDS}{index}", hosts.to_numpy(variable))
        try:
            check_layers(json.loads(config), len(writer.arrays))
        except FormatError as error:
            raise ValueError(
                f"The model has too many layers without weights: {error} Save it as `.keras`, or "
                f"leave such layers out. Received: model={model.name}"
            ) from error
        writer.write_file(_CONFIG, config.encode())
        for name, data in asset_files():
            writer.write_file(name, data)
        flag = {HAS_OPTIMIZER: str(bool(include_optimizer)).lower()}
        writer.finish({**metadata(), "keras_version": keras.__version__, **flag})
        file_bytes = file.tell()
    return SaveResult(path, file_bytes, rows)


@takes_named
def load(
    path: str | os.PathLike[str] | BinaryIO,
    model: keras.Model | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
    max_bytes: int | None = None,
) -> keras.Model:
    """Loads a model on the active backend.

    Args:
        path: Path of a file made by `save`; or a binary file, which is closed at the end.
        model: Keras model of the same structure to load the weights into. By default a new model is
            built from the file.
        custom_objects: Dict: name -> class or function, as in `keras.models.load_model`.
        compile: Boolean. Whether to compile the model as it was when saved, with its optimizer's
            state if the file has it.
        safe_mode: Boolean. Whether to refuse `Lambda` layers that contain code. Leave it on unless
            you made the file yourself.
        max_bytes: Integer. The most bytes that the contents may take in memory. Default: 1 GiB or
            1000 times the size of the file, whichever is larger.

    Returns:
        The Keras model.

    Raises:
        keras_trim.FormatError: if the file is not a `.ktrim` file, is damaged, or contradicts
            itself.
        ValueError: if `model` has another structure. Its weights are left unchanged.
        OSError: if the file does not exist or cannot be read.
        ImportError: if `zstandard` is not installed.
    """
    if model is not None:
        check_model(model)
    with Reader(path, max_bytes) as reader:
        into = model
        if model is None:
            num_bytes = sum(entry.decoded_bytes for entry in reader.arrays.values())
            text = _read_config(reader, path)
            arguments = (text, num_bytes, len(reader.arrays), custom_objects, compile, safe_mode)
            model, initialize_the_rest = build(*arguments)
        with contextlib.nullcontext() if into is None else _unchanged_by_errors(model):
            errors = load_state(reader, model)
            if errors:
                message = f"The file and the model do not match: {errors[0]}"
                raise FormatError(message) if into is None else ValueError(message)
        if into is None:
            initialize_the_rest()
    return model


def _read_config(reader, path):
    """Bytes: the JSON of a file's model."""
    if _CONFIG not in reader.files:
        raise FormatError(
            "The file holds arrays but no model: read it by `keras_trim.load_arrays`, or by "
            f"`keras_trim.inference.Engine.load` if it is an engine. Received: path={path}"
        )
    size = reader.files[_CONFIG].size
    if size * _BYTES_PER_CHARACTER > max(reader.max_bytes, FREE_BYTES):
        raise FormatError(
            f"The file's model has a description of {size:,} bytes, which may take "
            f"{_BYTES_PER_CHARACTER} times as much in memory. If you trust it, raise `max_bytes`. "
            f"Received: path={path}"
        )
    return reader.read_file(_CONFIG)


@contextlib.contextmanager
def _unchanged_by_errors(model):
    """Restores a model's values if the block raises."""
    variables = [*model.variables]
    for optimizer in optimizers_of(model):
        variables += optimizer.variables
    before = [np.array(hosts.to_numpy(variable)) for variable in variables]
    try:
        yield
    except BaseException:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        raise


def _structure(model):
    """String: the structure of a model as JSON. Equal models give equal strings."""
    with ObjectSharingScope():
        config = saving.serialize_keras_object(model)
    numbers = {}

    def number(value):
        """Renumbers shared objects in place, which Keras identifies by address."""
        if isinstance(value, dict):
            if "shared_object_id" in value:
                identity = value["shared_object_id"]
                value["shared_object_id"] = numbers.setdefault(identity, len(numbers))
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for item in value:
                number(item)

    number(config)
    return json.dumps(config, separators=(",", ":"))


def _write(writer, name, array, values):
    """Writes an array, quantized if `values` asks for it."""
    quantized = None
    if values and array.ndim >= 2:
        quantized = quantization.quantize(array, values)
    errors = ()
    if quantized is None:
        writer.write_array(name, array)
    else:
        rounded, scales, axis = quantized
        writer.write_array(name, rounded, array.dtype.name, scales, axis)
        restored = quantization.dequantize(rounded, array.dtype, scales, axis)
        errors = (quantization.largest_error(array, restored), float(abs(array).max()))
    stored = writer.arrays[-1].stored_bytes
    return SavedArray(name, array.shape, array.dtype.name, array.nbytes, stored, *errors)


def _warn_of_lost_masks(model):
    for optimizer in optimizers_of(model):
        while optimizer is not None:
            if getattr(optimizer, "pruned_weights", None):
                warnings.warn(
                    "The model is still being pruned. Its masks are optimizer state, which this "
                    "file leaves out: training the loaded model would prune it from scratch. If "
                    "training is over, call `strip_pruning(model)` first; otherwise pass "
                    f"`include_optimizer=True`. Received: model={model.name}",
                    stacklevel=4,
                )
                return
            optimizer = getattr(optimizer, "inner_optimizer", None)
