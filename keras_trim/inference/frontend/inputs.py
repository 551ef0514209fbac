"""What users hand to the engine, checked against what the model takes."""

import numpy as np

from keras_trim.inference.ir.dtypes import WIDE


def flatten_inputs(x, structure, specs):
    """The arrays of `x` in the order of the graph's inputs.

    Args:
        x: An array, or a list, tuple or dictionary of arrays, as the model takes them.
        structure: The model's, with numbers in the place of arrays.
        specs: List of dictionaries: `name`, `shape`, `dtype`.

    Returns:
        List of arrays, all of one batch size, and None for optional inputs that are not given.

    Raises:
        ValueError: if the structure, a shape or a dtype is not the model's.
    """
    found = {}
    _match(x, structure, specs, found)
    arrays = [
        None if found[i] is None and spec.get("optional") else _check(found[i], spec)
        for i, spec in enumerate(specs)
    ]
    sizes = {len(array) for array in arrays if array is not None}
    if len(sizes) > 1:
        raise ValueError(
            "All inputs must have the same batch size, their first axis. Received: "
            f"shapes={[array.shape for array in arrays if array is not None]}"
        )
    return arrays


def _match(x, structure, specs, found):
    if isinstance(structure, dict):
        if not isinstance(x, dict) or not set(structure) <= set(x):
            raise ValueError(
                f"The model takes a dictionary with the keys {sorted(structure)}. "
                f"Received: {_describe(x)}"
            )
        for key, part in structure.items():
            _match(x[key], part, specs, found)
    elif isinstance(structure, list | tuple):
        if len(structure) == 1 and not isinstance(x, list | tuple | dict):
            x = [x]
        if isinstance(x, dict) and {specs[i]["name"] for i in _leaves(structure)} <= set(x):
            for i in _leaves(structure):
                found[i] = x[specs[i]["name"]]
            return
        if not isinstance(x, list | tuple) or len(x) != len(structure):
            raise ValueError(
                f"The model takes a list of {len(structure)} inputs: "
                f"{', '.join(specs[i]['name'] for i in _leaves(structure))}. "
                f"Received: {_describe(x)}"
            )
        for value, part in zip(x, structure, strict=True):
            _match(value, part, specs, found)
    else:
        spec = specs[structure]
        if isinstance(x, dict) and spec["name"] in x:
            x = x[spec["name"]]
        if isinstance(x, list | tuple) and len(x) == 1 and np.ndim(x[0]) == len(spec["shape"]):
            x = x[0]
        if isinstance(x, dict):
            raise ValueError(
                f"The model takes one array, or a dictionary with the key '{spec['name']}'. "
                f"Received: {_describe(x)}"
            )
        found[structure] = x


def _leaves(structure):
    if isinstance(structure, dict):
        return [i for part in structure.values() for i in _leaves(part)]
    if isinstance(structure, list | tuple):
        return [i for part in structure for i in _leaves(part)]
    return [structure]


def _describe(x):
    if isinstance(x, dict):
        return f"a dictionary with the keys {sorted(map(str, x))}"
    if isinstance(x, list | tuple):
        return f"a {type(x).__name__} of {len(x)}"
    return f"{type(x).__name__} of shape {np.shape(x)}"


def _check(x, spec):
    name, shape = spec["name"], tuple(spec["shape"])
    if hasattr(x, "detach"):  # a PyTorch tensor
        x = x.detach().cpu()
        x = x.float() if str(x.dtype) == "torch.bfloat16" else x  # which NumPy lacks
    try:
        array = np.asarray(x)
    except ValueError as error:  # such as lists of several lengths
        raise ValueError(
            f"Input '{name}' must be an array of numbers. Received: {type(x).__name__}, of which "
            f"NumPy makes no array: {error}"
        ) from None
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise ValueError(
            f"Input '{name}' must be an array of numbers. Received: {type(x).__name__} of dtype "
            f"{array.dtype}"
        )
    if spec["dtype"] in WIDE and array.size:
        least, most = array.min(), array.max()
        if least < -(1 << 31) or most >= 1 << 31:
            raise ValueError(
                f"The engine computes with integers of 32 bits, and input '{name}' has some that "
                f"need more. Received: numbers from {least} to {most}"
            )
    for candidate in _candidates(array, len(shape)):
        # As in Keras, a batch size that the model declares binds nobody.
        sizes = zip(shape[1:], candidate.shape[1:], strict=True)
        if all(n in (None, size) for n, size in sizes):
            return candidate
    hint = ""
    if array.shape == shape[1:]:
        hint = " (the first axis is that of the batch: pass `x[None]` for one example)"
    raise ValueError(
        f"Input '{name}' must be of shape {_format(shape)}{hint}. "
        f"Received: shape={tuple(array.shape)}"
    )


def _candidates(array, rank):
    """The array, if of that rank; as in Keras, a last axis of size 1 may be missing or too many."""
    if array.ndim == rank:
        yield array
    elif array.ndim == rank - 1 and array.ndim:
        yield array[..., None]
    elif array.ndim == rank + 1 and array.shape[-1] == 1:
        yield array[..., 0]


def _format(shape):
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"


def restore_structure(structure, leaves):
    """The structure with `leaves[i]` in the place of each number i."""
    if isinstance(structure, int):
        return leaves[structure]
    if isinstance(structure, dict):
        return {key: restore_structure(part, leaves) for key, part in structure.items()}
    if isinstance(structure, list | tuple):
        return type(structure)(restore_structure(part, leaves) for part in structure)
