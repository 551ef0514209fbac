"""Random inputs that a model accepts: indices within its tables, padding where it masks."""

import keras
import numpy as np
from keras import layers


def random_inputs(model, shapes, in_unit=False):
    """Returns random arrays that a model accepts: normal floats, indices within its tables.

    Args:
        model: Keras model.
        shapes: List of lists of integers, one per input.
        in_unit: Bool. Whether floats are from [0, 1] instead.
    """
    rng = np.random.default_rng(0)
    readers = input_readers(model)
    arrays = []
    for tensor, shape, found in zip(model.inputs, shapes, readers, strict=True):
        tables = [layer.input_dim for layer in found if isinstance(layer, layers.Embedding)]
        if tables:
            array = rng.integers(1 if min(tables) > 1 else 0, min(tables), shape)
        elif tensor.dtype == "bool":
            array = rng.integers(0, 2, shape)
        elif tensor.dtype == "uint8":
            array = rng.integers(0, 256, shape)
        elif keras.backend.is_float_dtype(tensor.dtype):
            array = rng.random(shape) if in_unit else rng.standard_normal(shape)
        else:  # indices of unknown meaning
            array = rng.integers(0, 2, shape)
        arrays.append(array.astype(tensor.dtype))
    return arrays


def filler(readers):
    """Returns the value that marks a masked step in an input, or `None`."""
    for layer in readers:
        if isinstance(layer, layers.Embedding) and layer.mask_zero:
            return 0
        if isinstance(layer, layers.Masking):
            return layer.mask_value
    return None


def pad(array, value, place):
    """Pads rows by different lengths. Each keeps at least one step, and the last keeps all."""
    steps = array.shape[1]
    for row in range(len(array) - 1 if len(array) > 1 else 1):
        count = max(1, steps // (row + 2)) if steps > 1 else 0
        part = slice(steps - count, steps) if place == "behind" else slice(0, count)
        array[row, part] = value


def input_readers(model):
    """Lists, for each input of a model, the layers that read it, including in nested models."""
    functional = getattr(model, "_functional", None) or model
    found = [[] for _ in model.inputs]
    numbers = {id(tensor): i for i, tensor in enumerate(functional.inputs)}
    for node in (node for nodes in functional._nodes_by_depth.values() for node in nodes):
        if node.is_input:
            continue
        for position, tensor in enumerate(node.input_tensors):
            number = numbers.get(id(tensor))
            if number is None:
                continue
            if getattr(node.operation, "inputs", None):  # a nested model
                inner = input_readers(node.operation)
                found[number] += inner[position] if position < len(inner) else []
            else:
                found[number].append(node.operation)
    return found
