"""Files of other runtimes: LiteRT, ONNX, safetensors."""

import dataclasses
import importlib.util
import os
import warnings

import keras

from keras_trim.atomic import replace_file
from keras_trim.exporters import litert, onnx, safetensors
from keras_trim.exporters.conversion import convert
from keras_trim.exporters.samples import refuse_text

_CONVERTERS = {"litert": litert, "onnx": onnx, "safetensors": safetensors}
_WEIGHTS = (None, "float16", "int8")


@dataclasses.dataclass(frozen=True)
class ExportedFile:
    """What `export` wrote.

    Args:
        path: String.
        format: String.
        weights: `None`, `"float16"` or `"int8"`.
        num_bytes: Integer. Size of the file.
        is_sparse: Bool. Whether zeros are stored sparsely.
        batch_size: Integer that the file is bound to, or `None` (any).
    """

    path: str
    format: str
    weights: str | None
    num_bytes: int
    is_sparse: bool
    batch_size: int | None = None


def export(model, path, format="litert", weights=None):
    """Writes a model to a file that another runtime runs, on any backend.

    The file is complete or not written at all, and replaces an older one only then.

    - `"litert"`: a LiteRT (TensorFlow Lite) model. Weights with 30 % zeros and more are stored
      sparsely. Needs the extra `litert`; TensorFlow converts it, in a process of its own if
      another backend is active.
    - `"onnx"`: an ONNX model in float32. Needs the extra `onnx`; PyTorch converts it, likewise.
    - `"safetensors"`: the weights alone, named by their paths; `keras_trim.exporters.safetensors`
      says how. Needs the extra `safetensors`.

    Args:
        model: Keras model that is built.
        path: String or path-like. The file; its folder must exist.
        format: String. `"litert"`, `"onnx"` or `"safetensors"`.
        weights: `None` (float32), or what to store them as: `"float16"` or `"int8"`; not for
            ONNX.

    Returns:
        `ExportedFile`.

    Raises:
        ImportError: if an extra is not installed.
        OSError: if the file cannot be written.
        ValueError: if the model cannot be converted, or an argument is wrong.

    Example:

    ```python
    keras_trim.export(model, "model.tflite")
    keras_trim.export(model, "model.tflite", weights="float16")
    ```
    """
    _validate(model, format, weights)
    _require_packages(format)
    path = os.fspath(path)
    with replace_file(path) as file:  # before the work, so that a read-only folder fails at once
        if format == "litert":
            data, facts = convert(model, litert, weights=weights)
        elif format == "onnx":
            data, facts = convert(model, onnx)
        else:
            data, facts = safetensors.convert(model, weights)
        file.write(data)
    for warning in facts["warnings"]:
        warnings.warn(f"{path}: {warning}.", stacklevel=2)
    return ExportedFile(path, format, weights, len(data), facts["is_sparse"], facts["batch_size"])


def _validate(model, format, weights):
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: model={model!r}")
    if format not in _CONVERTERS:
        formats = ", ".join(map(repr, _CONVERTERS))
        raise ValueError(f"`format` must be one of {formats}. Received: format={format!r}")
    if weights not in _WEIGHTS:
        raise ValueError(
            f"`weights` must be one of {', '.join(map(repr, _WEIGHTS))}. "
            f"Received: weights={weights!r}"
        )
    if format == "onnx" and weights is not None:
        raise ValueError(
            "ONNX files are written in float32: leave `weights` at `None`, and make the file "
            "smaller with `onnxruntime.quantization`. Received: format='onnx', "
            f"weights={weights!r}"
        )
    if format == "safetensors":
        if not model.built:
            raise ValueError(
                "The model has no weights yet: build it first, by `model.build(input_shape)` or "
                f"by calling it on a batch. Received: model={model.name}"
            )
        return
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            "The model's inputs are not known: it must be a Sequential or Functional model, built "
            f"by a `keras.Input` or `model.build(input_shape)`. Received: model={model.name}"
        )
    refuse_text(model.inputs)
    quantized = [
        f"'{layer.name}' ({layer.quantization_mode})"
        for layer in model._flatten_layers()
        if getattr(layer, "quantization_mode", None)
    ]
    if format == "litert" and quantized:
        raise ValueError(
            "TensorFlow's converter cannot convert layers that Keras has quantized: export the "
            "model as it was before `quantize`, with weights='int8' for a small file. "
            f"Received: {', '.join(quantized[:4])}{' ...' if quantized[4:] else ''}"
        )


def _require_packages(format):
    """Looks before the work: a process that converts takes seconds to find out."""
    packages = _CONVERTERS[format].PACKAGES
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"Exporting in the format '{format}' needs: pip install \"keras-trim[{format}]\". "
            f"Not found: {', '.join(missing)}. Received: format='{format}'"
        )
