"""Converts between the user's structures and the order of the graph's inputs and outputs."""

import numpy as np

from keras_trim.inference.ir.dtypes import WIDE, as_numpy, converted, is_float
from keras_trim.model_inputs import flatten


def flatten_inputs(x, structure, specs):
    """Returns the arrays of `x` in the order of the graph's inputs, in their own dtypes.

    Args:
        x: An array, or a list, tuple or dictionary of arrays, as the model takes them.
        structure: The model's input structure, with numbers in place of arrays.
        specs: List of dictionaries: `name`, `shape`, `dtype`; `saturates` as for `converted`, by
            default False; `table_length`, if the input holds indices of a table.

    Returns:
        List of arrays, all with the same batch size; None for missing optional inputs.

    Raises:
        ValueError: if the structure, a shape or a dtype does not match the model's.
    """
    return flatten(x, structure, specs, _as_input)


def random_inputs(shapes, specs):
    """Returns arrays of random numbers that a model takes.

    Args:
        shapes: List of tuples of integers.
        specs: List of dictionaries, as for `flatten_inputs`.
    """
    rng = np.random.default_rng(0)
    return [
        _random(rng, shape, spec).astype(as_numpy(spec["dtype"]))
        for shape, spec in zip(shapes, specs, strict=True)
    ]


def _random(rng, shape, spec):
    length = spec.get("table_length")
    return rng.integers(0, length, shape) if length else rng.standard_normal(shape, np.float32)


def _as_input(array, spec):
    """The array with the integers that an input of integers takes from it.

    Raises:
        ValueError: if they need more than 32 bits, or are no indices of the table that they index.
    """
    array = _as_integers(array, spec)
    length = spec.get("table_length")
    if length is not None and array.size:
        least, most = array.min(), array.max()
        if not (-length - 1 < least and most < length):  # floats are truncated; or NaN
            raise ValueError(
                f"Input '{spec['name']}' must hold indices of an embedding's table, which has "
                f"{length:,} rows. Received: numbers from {least} to {most}"
            )
    return array


def _as_integers(array, spec):
    dtype = spec["dtype"]
    if dtype in WIDE and array.size:
        least, most = array.min(), array.max()
        if not (least >= -(1 << 31) and most < 1 << 31):  # or NaN
            raise ValueError(
                "The engine computes with integers of 32 bits, and input "
                f"'{spec['name']}' has some that need more. "
                f"Received: numbers from {least} to {most}"
            )
        return array
    if is_float(dtype) or array.dtype.name == dtype:
        return array
    with np.errstate(invalid="ignore"):  # as Keras
        return converted(array, dtype, spec.get("saturates", False))


def restore_structure(structure, leaves):
    """The structure with each number i replaced by `leaves[i]`."""
    if isinstance(structure, int):
        return leaves[structure]
    if isinstance(structure, dict):
        return {key: restore_structure(part, leaves) for key, part in structure.items()}
    if isinstance(structure, list | tuple):
        parts = [restore_structure(part, leaves) for part in structure]
        is_named = hasattr(structure, "_fields")  # a namedtuple takes its parts one by one
        return type(structure)(*parts) if is_named else type(structure)(parts)
