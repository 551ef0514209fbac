"""Checks the arguments of `export`, and the packages that a format needs, before converting."""

import importlib.util

import keras

from keras_trim.arguments import check_model, one_of
from keras_trim.exporters.cases import refuse_text

WEIGHTS = (None, "float16", "int8")


def validate(model, format, weights, verification_data, representative_data):
    """Raises ValueError for a model or arguments that the format cannot take."""
    check_model(model, must_be_built=False)
    one_of(weights, WEIGHTS, "weights")
    if format in ("onnx", "openvino") and weights == "int8":
        raise ValueError(
            f"{format} files are written in float32 or float16. For a smaller file, use "
            "`onnxruntime.quantization` or `nncf`. "
            f"Received: format={format!r}, weights={weights!r}"
        )
    if representative_data is not None and (format, weights) != ("litert", "int8"):
        raise ValueError(
            "`representative_data` is for LiteRT files with weights='int8'. "
            f"Received: format={format!r}, weights={weights!r}"
        )
    if format == "safetensors":
        if verification_data is not None:
            raise ValueError(
                "A safetensors file only holds weights, which need no data to verify. "
                "Received: verification_data, format='safetensors'"
            )
        if not model.built:
            raise ValueError(
                "The model has no weights yet. Build it first with `model.build(input_shape)` or "
                f"call it on a batch. Received: model={model.name}"
            )
        return
    _refuse_own_predict_step(model)
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            "The model's inputs are not known. It must be a Sequential or Functional model, built "
            "with a `keras.Input` or `model.build(input_shape)`. To make one of any "
            "other model, write `x = keras.Input(shape)` and `keras.Model(x, model(x))`. "
            f"Received: model={model.name}"
        )
    refuse_text(model.inputs)
    quantized = [
        f"'{layer.name}' ({layer.quantization_mode})"
        for layer in model._flatten_layers()
        if getattr(layer, "quantization_mode", None)
    ]
    if format == "litert" and quantized:
        raise ValueError(
            "TensorFlow's converter cannot convert layers that Keras has quantized. Export the "
            "model from before `quantize`; weights='int8' makes a small file. "
            f"Received: {', '.join(quantized[:4])}{' ...' if quantized[4:] else ''}"
        )


def _refuse_own_predict_step(model):
    """Raises `ValueError` if `model.predict` returns something other than the model's outputs."""
    own = getattr(model.predict_step, "__func__", model.predict_step)
    if own is not keras.Model.predict_step:
        raise ValueError(
            f"A file returns what `model(x)` returns, but `{type(model).__name__}` has a "
            "`predict_step` of its own, so `model.predict` may return something else. Move its "
            "work into layers, or export `keras.Model(model.inputs, model.outputs)`, which leaves "
            "it out. "
            f"Received: model={model.name}"
        )


def require_packages(format, packages):
    """Checks for packages up front, because the converting process takes seconds to fail."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        # The extra of a format leaves TensorFlow out, so as not to replace an installed build.
        extras = f"{format},tensorflow" if "tensorflow" in missing else format
        raise ImportError(
            f"Exporting in the format '{format}' needs: pip install \"keras-trim[{extras}]\". "
            f"Not found: {', '.join(missing)}. Received: format='{format}'"
        )
