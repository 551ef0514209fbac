"""Checks a batch against a model's inputs, and puts it into their order and dtypes."""

import numpy as np

from keras_trim.batches import describe, from_torch


def signature(model):
    """Describes the inputs of a Keras model, in the form that `flatten` reads.

    Args:
        model: Built Sequential or Functional model, so that its inputs are known.

    Returns:
        Tuple of the structure of its inputs, with each input's index in its place, and a list of
        dicts: `name`, `shape` (with `None` for free sizes), `dtype`, `optional`.
    """
    import keras

    structure = getattr(model, "_inputs_struct", None)
    structure = model.inputs[0] if structure is None else structure
    numbers = range(len(keras.tree.flatten(structure)))
    return keras.tree.pack_sequence_as(structure, list(numbers)), [
        {
            "name": tensor.name,
            "shape": tuple(tensor.shape),
            "dtype": keras.backend.standardize_dtype(tensor.dtype),
            "optional": bool(getattr(tensor._keras_history.operation, "optional", False)),
        }
        for tensor in model.inputs
    ]


def flatten(x, structure, specs, convert=None):
    """Returns the arrays of a batch in the order and dtypes of a model's inputs.

    As in Keras, a dict may name inputs that the model takes as a list. A last axis of size 1 may be
    missing or extra, a batch size that the model declares is ignored, and numbers are converted to
    the dtype of the input.

    Args:
        x: Arrays or array-likes, nested as the model expects.
        structure: As returned by `signature`.
        specs: As returned by `signature`.
        convert: Function, array of the input's rank and its spec -> array. By default it casts to
            the input's dtype.

    Returns:
        List of NumPy arrays, with `None` for an optional input that is not given.

    Raises:
        ValueError: if the structure, a name, a shape or a dtype does not match the model's.
    """
    found = {}
    _match(x, structure, specs, found)
    arrays = [_convert(found.get(i), spec, convert or _cast) for i, spec in enumerate(specs)]
    sizes = {len(array) for array in arrays if array is not None and array.ndim}
    if len(sizes) > 1:
        raise ValueError(
            "All inputs must have the same batch size, their first axis. Received: "
            f"shapes={[None if array is None else array.shape for array in arrays]}"
        )
    return arrays


def _match(x, structure, specs, found):
    """Stores in `found` what is given for each input."""
    if isinstance(structure, int):
        name = specs[structure]["name"]
        if isinstance(x, dict) and name not in x:
            _refuse(f"one array, or a dict with the key '{name}'", x)
        x = x[name] if isinstance(x, dict) else x
        if isinstance(x, list | tuple) and len(x) == 1:
            # An array may lack its last axis. A list that does is one example in a list.
            rank = len(specs[structure]["shape"]) - hasattr(x[0], "shape")
            x = x[0] if np.ndim(x[0]) >= rank else x
        found[structure] = x
        return
    leaves = list(_leaves(structure))
    if isinstance(structure, dict):
        required = [key for key, part in structure.items() if not _is_optional(part, specs)]
        if not isinstance(x, dict) or not set(required) <= set(x):
            _refuse(f"a dict with the keys {', '.join(map(repr, structure))}", x)
        for key, part in structure.items():
            _match(x.get(key), part, specs, found)
    elif isinstance(x, dict) and all(isinstance(part, int) for part in structure):
        missing = [i for i in leaves if specs[i]["name"] not in x and not specs[i].get("optional")]
        if missing:
            _refuse(f"the inputs {', '.join(repr(specs[i]['name']) for i in leaves)}", x)
        found.update((i, x.get(specs[i]["name"])) for i in leaves)
    else:
        x = [x] if len(structure) == 1 and not isinstance(x, list | tuple) else x
        if not isinstance(x, list | tuple) or len(x) != len(structure):
            names = ", ".join(specs[i]["name"] for i in leaves)
            _refuse(f"a list of {len(structure)} inputs: {names}", x)
        for value, part in zip(x, structure, strict=True):
            _match(value, part, specs, found)


def _refuse(expected, x):
    raise ValueError(f"The model takes {expected}. Received: {describe(x)}")


def _leaves(structure):
    if isinstance(structure, int):
        yield structure
        return
    for part in structure.values() if isinstance(structure, dict) else structure:
        yield from _leaves(part)


def _is_optional(structure, specs):
    return all(specs[i].get("optional") for i in _leaves(structure))


def _convert(x, spec, cast):
    """Converts to an array of the input's rank and dtype."""
    name, shape = spec["name"], tuple(spec["shape"])
    if x is None:
        if spec.get("optional"):
            return None
        raise ValueError(
            f"Input '{name}' is not optional: '{name}' must be an array of numbers. "
            "Received: NoneType"
        )
    array = _as_array(x, name)
    for candidate in _candidates(array, shape):
        sizes = zip(shape[1:], candidate.shape[1:], strict=True)
        if all(size in (None, given) for size, given in sizes):
            return cast(candidate, spec)
    hint = ""
    if array.shape == shape[1:]:
        hint = " (the first axis is that of the batch: pass `x[None]` for one example)"
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    raise ValueError(
        f"Input '{name}' must be of shape ({sizes}){hint}. Received: shape={tuple(array.shape)}"
    )


def _as_array(x, name):
    try:
        array = np.asarray(from_torch(x))
    except ValueError as error:  # e.g. lists of different lengths
        raise ValueError(
            f"Input '{name}' must be an array of numbers. Received: {_why_no_array(x, error)}"
        ) from None
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise ValueError(
            f"Input '{name}' must be an array of numbers. Received: {type(x).__name__} of dtype "
            f"{array.dtype}"
        )
    return array


def _why_no_array(x, error):
    kind = type(x).__name__
    parts = x if isinstance(x, list | tuple) else [x]
    if all(hasattr(part, "shape") for part in parts):
        return f"a {kind} of arrays of shapes {', '.join(str(tuple(p.shape)) for p in parts[:4])}"
    if all(isinstance(part, list) for part in parts) and len(set(map(len, parts))) > 1:
        return f"a {kind} of lists of different lengths; `keras.utils.pad_sequences` pads them"
    return f"{kind}, of which NumPy makes no array: {error}"


def _candidates(array, shape):
    """Yields the array if its rank fits, or with a last axis of size 1 added or removed."""
    if array.ndim == len(shape):
        yield array
    elif array.ndim == len(shape) - 1 and array.ndim and shape[-1] in (None, 1):
        yield array[..., None]
    elif array.ndim == len(shape) + 1 and array.shape[-1] == 1:
        yield array[..., 0]


def _cast(array, spec):
    dtype = spec["dtype"]
    if array.dtype.name == dtype:
        return array
    if dtype == "bfloat16":
        import ml_dtypes

        dtype = ml_dtypes.bfloat16
    with np.errstate(over="ignore", invalid="ignore"):  # as Keras
        return array.astype(dtype)
