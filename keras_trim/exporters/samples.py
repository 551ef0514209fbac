"""Sample inputs of a model, to compare runtimes on."""

import keras
import numpy as np

_UNKNOWN_SIZE = 32  # of images and sequences of any size


def sample_inputs(tensors, batch_size):
    """Makes random arrays of the shapes and dtypes of a model's inputs.

    Args:
        tensors: List of `KerasTensor`.
        batch_size: Integer.

    Returns:
        List of arrays: normal floats, or zeros of other dtypes, which are valid indices.

    Raises:
        ValueError: if an input takes text.
    """
    refuse_text(tensors)
    rng = np.random.default_rng(0)
    samples = []
    for tensor in tensors:
        shape = [_UNKNOWN_SIZE if size is None else size for size in tensor.shape]
        shape[0] = tensor.shape[0] or batch_size
        if keras.backend.is_float_dtype(tensor.dtype):
            samples.append(rng.standard_normal(shape).astype(tensor.dtype))
        else:
            samples.append(np.zeros(shape, tensor.dtype))
    return samples


def refuse_text(tensors):
    """Raises `ValueError` if one of the inputs takes text, which no other runtime does."""
    for tensor in tensors:
        if tensor.dtype == "string":
            raise ValueError(
                "Models that take text run in Keras only: make a model of the layers behind those "
                f"that turn text into numbers. Received: input '{tensor.name}' of dtype string"
            )


def outputs_of(model, samples):
    """The outputs of a model as a flat list of NumPy arrays."""
    structure = keras.tree.pack_sequence_as(input_structure(model), samples)
    outputs = model(structure, training=False)
    return [keras.ops.convert_to_numpy(value) for value in keras.tree.flatten(outputs)]


def input_structure(model):
    """The inputs of a model, nested as it takes them."""
    structure = getattr(model, "_inputs_struct", None)
    return model.inputs[0] if structure is None else structure


def largest_difference(values, expected):
    """The largest difference of lists of arrays, over the largest expected magnitude.

    Returns:
        Float; infinity if shapes differ, or a value is finite in one of them only.
    """
    worst = 0.0
    for value, target in zip(values, expected, strict=True):
        if value.shape != target.shape or (np.isfinite(value) != np.isfinite(target)).any():
            return float("inf")
        finite = np.isfinite(target)
        if finite.any():
            value, target = value[finite].astype("float64"), target[finite].astype("float64")
            scale = max(np.abs(target).max(), 1e-6)
            worst = max(worst, np.abs(value - target).max() / scale)
    return float(worst)
