"""LiteRT (TensorFlow Lite) files, with zeros stored sparsely.

TensorFlow's converter makes them, so this runs under the TensorFlow backend. It stores a weight of
rank 2 or 4 sparsely if 30 % of it or more are zero, and inserts a `DENSIFY` operation behind it
unless a Dense kernel is zero in whole blocks of 4 inputs, which LiteRT multiplies sparsely.
"""

import tempfile
import warnings

import keras
import numpy as np

from keras_trim.exporters.samples import (
    input_structure,
    largest_difference,
    outputs_of,
    sample_inputs,
)

BACKEND = "tensorflow"
PACKAGES = ("ai_edge_litert", "tensorflow")
# Converted files are compared with the model, or sparse ones with dense ones, on random inputs.
_TOLERANCE = 1e-3


def convert(model, weights):
    """Converts a model under the TensorFlow backend.

    Args:
        model: Keras model that is built.
        weights: `None` (as they are), `"float16"` or `"int8"`.

    Returns:
        Tuple of the bytes of the file and a dict: `is_sparse` (whether zeros are stored
        sparsely), `batch_size` (`None`: any) and `warnings`, a list of strings.

    Raises:
        ValueError: if the model cannot be converted.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own, about its parts
        return _convert(model, weights)


def _convert(model, weights):
    notes = []
    with tempfile.TemporaryDirectory(prefix="keras_trim_") as folder:
        batch_size, data = _convert_any_batch(model, folder, weights)
        if batch_size:
            notes.append(
                "the file takes one example at a time: TensorFlow's converter cannot "
                "convert recurrent layers for batches of any size"
            )
        samples = sample_inputs(model.inputs, batch_size or 2)
        expected = outputs_of(model, samples)
        dense = _run(data, model, samples, "")
        _check_dense(dense, expected, weights, model)
        if weights == "int8":
            # LiteRT 2.3 refuses most files of sparse int8 weights, and runs the others wrongly.
            if _has_zeros(model):
                notes.append(
                    "int8 weights are stored densely: LiteRT cannot run sparse ones. Above about "
                    "75 % zeros weights='float16' makes a smaller file"
                )
            return data, _facts(False, batch_size, notes)
        sparse = _call_converter(folder, weights, sparse=True)
    if len(sparse) >= len(data):  # few zeros: their indices cost more than they do
        return data, _facts(False, batch_size, notes)
    try:
        difference = largest_difference(_run(sparse, model, samples, "sparse "), dense)
    except ValueError:
        difference = float("inf")
    if difference <= _TOLERANCE:
        return sparse, _facts(True, batch_size, notes)
    notes.append(
        "weights are stored densely: LiteRT does not give the same outputs with sparse ones of "
        "this kind (Dense kernels in blocks of 4 inputs with weights='float16' are such a case). "
        "weights=None stores them sparsely"
    )
    return data, _facts(False, batch_size, notes)


def _facts(is_sparse, batch_size, notes):
    return {"is_sparse": is_sparse, "batch_size": batch_size, "warnings": notes}


def _convert_any_batch(model, folder, weights):
    """Converts densely; for batches of any size if possible, else of one."""
    # The loops of recurrent layers need a known batch size, or operations that LiteRT lacks.
    is_recurrent = any(isinstance(layer, keras.layers.RNN) for layer in model._flatten_layers())
    batch_size = 1 if is_recurrent and model.inputs[0].shape[0] is None else None
    try:
        _save(model, folder, batch_size)
        return batch_size, _call_converter(folder, weights, sparse=False)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0][:300].rstrip(".") if lines else type(error).__name__
        raise ValueError(
            f"TensorFlow's converter cannot convert this model to LiteRT: {reason}. "
            f"Received: model={model.name}"
        ) from error


def _save(model, folder, batch_size):
    def spec(tensor):
        shape = (batch_size, *tensor.shape[1:]) if batch_size else tensor.shape
        return keras.InputSpec(shape=shape, dtype=tensor.dtype, name=tensor.name)

    signature = [keras.tree.map_structure(spec, input_structure(model))]
    model.export(folder, format="tf_saved_model", verbose=False, input_signature=signature)


def _call_converter(folder, weights, sparse):
    import tensorflow as tf

    # A converter of a concrete function would leave the variables out of the file.
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = []
    if sparse:
        converter.optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    if weights is not None:
        converter.optimizations.append(tf.lite.Optimize.DEFAULT)
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _interpreter(data):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=data, num_threads=1)


def _run(data, model, samples, kind):
    """The outputs of a file as a list of arrays, in the order of the model's outputs."""
    try:
        runner = _interpreter(data).get_signature_runner("serving_default")
        names = [tensor.name for tensor in model.inputs]
        outputs = runner(**dict(zip(names, samples, strict=True)))
    except Exception as error:
        raise ValueError(
            f"LiteRT cannot run the {kind}file made of this model: {error}. "
            f"Received: model={model.name}"
        ) from error
    return [outputs[name] for name in sorted(outputs, key=_output_order)]


def _output_order(name):
    """`output_2` before `output_10`; keys of a dict as Keras flattens it."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number)) if stem == "output" and number.isdigit() else (name, 0)


def _check_dense(values, expected, weights, model):
    difference = largest_difference(values, expected)
    # Coarser weights give other outputs; that is the user's choice, but none of them overflows.
    if difference > _TOLERANCE if weights is None else difference == float("inf"):
        raise ValueError(
            f"The LiteRT file made of this model does not give its outputs: they differ by "
            f"{difference:.2g} of the largest. Received: model={model.name}, weights={weights!r}"
        )


def _has_zeros(model):
    """Whether a weight is sparse enough for the converter to store it sparsely."""
    values = (keras.ops.convert_to_numpy(variable) for variable in model.variables)
    return any(
        value.ndim in (2, 4) and np.count_nonzero(value) <= 0.7 * value.size for value in values
    )
