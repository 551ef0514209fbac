"""Converts between the user's structures and the order of the graph's inputs and outputs."""

from keras_trim.batches import flatten
from keras_trim.inference.ir.dtypes import WIDE


def flatten_inputs(x, structure, specs):
    """Returns the arrays of `x` in the order of the graph's inputs, in their own dtypes.

    Args:
        x: An array, or a list, tuple or dictionary of arrays, as the model takes them.
        structure: The model's input structure, with numbers in place of arrays.
        specs: List of dictionaries: `name`, `shape`, `dtype`.

    Returns:
        List of arrays, all with the same batch size; None for missing optional inputs.

    Raises:
        ValueError: if the structure, a shape or a dtype does not match the model's.
    """
    return flatten(x, structure, specs, _fits_in_32_bits)


def _fits_in_32_bits(array, spec):
    """Returns the array, or raises `ValueError` if its integers need more than 32 bits."""
    if spec["dtype"] in WIDE and array.size:
        least, most = array.min(), array.max()
        if least < -(1 << 31) or most >= 1 << 31:
            raise ValueError(
                "The engine computes with integers of 32 bits, and input "
                f"'{spec['name']}' has some that need more. "
                f"Received: numbers from {least} to {most}"
            )
    return array


def restore_structure(structure, leaves):
    """The structure with each number i replaced by `leaves[i]`."""
    if isinstance(structure, int):
        return leaves[structure]
    if isinstance(structure, dict):
        return {key: restore_structure(part, leaves) for key, part in structure.items()}
    if isinstance(structure, list | tuple):
        return type(structure)(restore_structure(part, leaves) for part in structure)
