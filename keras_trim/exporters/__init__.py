"""Exports models to files for other runtimes: LiteRT, ONNX, OpenVINO, safetensors."""

import contextlib
import dataclasses
import os
import warnings
from typing import Any

import keras

from keras_trim.arguments import described, takes_named
from keras_trim.atomic import replace_path
from keras_trim.exporters import litert, onnx, openvino, safetensors
from keras_trim.exporters.accuracy import FileAccuracy as FileAccuracy
from keras_trim.exporters.accuracy import representative_cases
from keras_trim.exporters.bisection import first_difference
from keras_trim.exporters.cases import make_cases
from keras_trim.exporters.conversion import convert
from keras_trim.exporters.formats import format_of
from keras_trim.exporters.preparation import left_unchanged, prepare
from keras_trim.exporters.validation import require_packages, validate
from keras_trim.exporters.verification import FileDiffersError
from keras_trim.progress import check_verbose, progress

_CONVERTERS = {
    "litert": litert,
    "onnx": onnx,
    "openvino": openvino,
    "safetensors": safetensors,
}


@dataclasses.dataclass(frozen=True)
class ExportedFile:
    """The file that `export` wrote. `print` it for a summary.

    Args:
        path: String.
        format: String.
        weights: `None`, `"float16"` or `"int8"`.
        num_bytes: Integer. Size of the file; for OpenVINO, of both files.
        is_sparse: Bool. Whether zeros are stored sparsely.
        batch_size: Integer: the only batch size the file accepts, or `None` (any).
        largest_error: Float, or `None` (safetensors). The largest difference between outputs of the
            file and the model, relative to the model's largest output, over all test inputs; with
            `representative_data`, over these, because others may exceed their ranges.
        accuracy: `FileAccuracy` on `representative_data`, or `None`.
    """

    path: str
    format: str
    weights: str | None
    num_bytes: int
    is_sparse: bool
    batch_size: int | None = None
    largest_error: float | None = None
    accuracy: FileAccuracy | None = None

    def __str__(self) -> str:
        zeros = "zeros stored sparsely" if self.is_sparse else "zeros stored like other values"
        text = f"{self.path}: {self.num_bytes:,} bytes, {self.weights or 'float32'}, {zeros}"
        if self.batch_size is not None:
            text += f", for batches of {self.batch_size}"
        if self.accuracy is not None:
            return f"{text}; {self.accuracy}"
        if self.largest_error is None:
            return text
        return f"{text}; outputs differ by {self.largest_error:.1e} of the largest at most"


@takes_named
def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    format: str | None = None,
    weights: str | None = None,
    verification_data: Any = None,
    representative_data: Any = None,
    verbose: str | bool = "auto",
) -> ExportedFile:
    """Writes a model to a file for another runtime, on any backend.

    The file returns the same outputs as `model.predict` in this process, on this backend. To verify
    that, `export` runs it on `verification_data` and on random inputs: batches of one and more
    examples, several sizes if sizes are free, and with and without padding if inputs are masked. A
    difference is an error that names the first layer that differs. Layers run in inference mode.

    The file is written completely or not at all. An existing file is only replaced by a complete
    one.

    - `"litert"` (`.tflite`): a LiteRT (TensorFlow Lite) model. Weights with at least 30 % zeros are
      stored sparsely. Needs the extra `litert`. TensorFlow converts it, in a separate process if
      another backend is active.
    - `"onnx"` (`.onnx`): an ONNX model. Needs the extra `onnx`. PyTorch converts it, in the same
      way.
    - `"openvino"` (`.xml`): OpenVINO's intermediate representation. The weights go to a second file
      with the same name and the ending `.bin`. Needs the extra `openvino`. PyTorch converts it, in
      the same way.
    - `"safetensors"` (`.safetensors`): only the weights, named by their paths; for details see
      `docs/deployment.md`. Needs the extra `safetensors`.

    Models in float16, bfloat16 or mixed precision are written in float32.

    Args:
        model: Built Keras model.
        path: String or path-like. The file. Its folder must exist.
        format: String. By default the ending of `path` decides. A given format must not contradict
            it.
        weights: How to store weights: `None` (float32), `"float16"`, or `"int8"` (LiteRT and
            safetensors).
        verification_data: Anything that `model.predict` accepts. The first 8 batches are compared,
            too.
        representative_data: At least a hundred examples: anything that `model.predict` accepts, a
            list of dicts, or a function like TensorFlow's `representative_dataset`. LiteRT only.
            Sets the ranges for int8 activations; weights become int8, too, but inputs and outputs
            stay float32. The result's `accuracy` compares the file with the model on this data.
        verbose: `"auto"` (reports progress on a terminal or in a notebook if it takes longer than
            two seconds), `True` or `False`.

    Returns:
        `ExportedFile`.

    Raises:
        ImportError: if an extra is not installed.
        OSError: if the file cannot be written.
        ValueError: if the model cannot be converted, the file's outputs differ from the model's, or
            an argument is invalid.

    Example:

    ```python
    keras_trim.export(model, "model.tflite")
    keras_trim.export(model, "model.tflite", weights="float16")
    keras_trim.export(model, "model.tflite", representative_data=x[:200]).accuracy
    ```
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(
            "`path` must be the path of a file: the model comes first, the path second. "
            f"Received: path={described(path)}"
        )
    check_verbose(verbose)
    path = os.fspath(path)
    format = format_of(path, format)
    if representative_data is not None and weights is None and format == "litert":
        weights = "int8"
    validate(model, format, weights, verification_data, representative_data)
    require_packages(format, _CONVERTERS[format].PACKAGES)
    with contextlib.ExitStack() as stack:
        # First, so that a path that cannot be written fails at once.
        paths = {"": path}
        if format == "openvino":
            paths = {".xml": path, ".bin": f"{os.path.splitext(path)[0]}.bin"}
        temporaries = {
            ending: stack.enter_context(replace_path(each)) for ending, each in paths.items()
        }
        if format == "safetensors":
            made, accuracy = safetensors.convert(model, weights), None
        else:
            with progress(f"exporting to {format}", verbose=verbose):
                made, accuracy = _convert(
                    prepare(model), format, weights, verification_data, representative_data
                )
        files = made.data if isinstance(made.data, dict) else {"": made.data}
        for ending, content in files.items():
            temporaries[ending].write_bytes(content)
    for warning in made.warnings:
        warnings.warn(f"{path}: {warning}.", stacklevel=3)
    return ExportedFile(
        path,
        format,
        weights,
        sum(map(len, files.values())),
        made.is_sparse,
        made.batch_size,
        None if format == "safetensors" else made.largest_error,
        accuracy,
    )


def make_file(model, format):
    """Returns the file that `export` would write with its defaults.

    Returns:
        `Converted`.

    Raises:
        ImportError, ValueError: like `export`.
    """
    return make_prepared_file(model, format)[0]


def make_prepared_file(model, format):
    """As `make_file`. Returns the file, and the `Prepared` model that it was made of."""
    validate(model, format, None, None, None)
    require_packages(format, _CONVERTERS[format].PACKAGES)
    prepared = prepare(model)
    return _convert(prepared, format)[0], prepared


def _convert(prepared, format, weights=None, verification_data=None, representative_data=None):
    """Returns the file of a model, and its accuracy on the representative data or `None`."""
    converter = _CONVERTERS[format]
    cases = make_cases(prepared, verification_data)
    options = {"weights": weights}
    if format == "litert":
        options["names"] = prepared.argument_names
    elif format in ("onnx", "openvino"):
        options["names"] = [prepared.input_names, prepared.output_names]
    if representative_data is not None:
        options["representative"] = representative_cases(prepared, representative_data)
    with left_unchanged(prepared.source):
        try:
            made = convert(prepared, converter, cases, **options)
        except FileDiffersError as error:
            raise _difference(prepared, converter, error, format, weights) from error
    accuracy = None
    if representative_data is not None:
        accuracy = FileAccuracy.of(
            litert.runner(made.data, options["names"]),
            options["representative"],
            prepared.model.inputs[0].shape[0] or 1,
        )
    notes = [*prepared.notes, *made.warnings]
    if format == "litert" and prepared.names:
        renamed = [
            f"'{prepared.names[name]}' is '{name}'"
            for name in prepared.argument_names
            if name in prepared.names
        ]
        if renamed:
            notes.append(f"inputs have names that LiteRT accepts: {', '.join(renamed)}")
    return dataclasses.replace(made, warnings=notes), accuracy


def _difference(prepared, converter, error, format, weights):
    """Returns an error that says where a file differs."""
    layer = first_difference(prepared, converter, error.case)
    if layer is not None:
        where = (
            f"the first layer whose outputs differ is '{prepared.name_of(layer)}' "
            f"({type(layer).__name__}): replace it, or use KERAS_BACKEND={converter.BACKEND} and "
            "compare what `model.predict` returns there"
        )
    elif weights is not None:
        where = "in float32 every layer is right: leave out `weights`"
    else:
        where = "every layer alone is right, so the source of the difference is unknown"
    return ValueError(
        f"The file would not return what the model returns here, on the {keras.backend.backend()} "
        f"backend: {error}; {where}. No file was written. "
        f"Received: model={prepared.source.name}, format={format!r}, weights={weights!r}"
    )
