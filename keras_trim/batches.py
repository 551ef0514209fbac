"""Reads whatever `model.predict` accepts, batch by batch, and checks it against a model's inputs.

`iterate` reads arrays, lists and dicts of them, generators, `tf.data.Dataset`,
`keras.utils.PyDataset`, PyTorch's `DataLoader` and pandas frames. `flatten` puts a batch into the
order of a model's inputs. NumPy arrays are read without Keras, everything else by Keras's adapters.
`calls` adds the forms of TensorFlow's tools.
"""

import contextlib
import inspect
import itertools
import warnings
from collections.abc import Iterator

import numpy as np

from keras_trim.arguments import positive_integer

BATCH_SIZE = 32  # Keras's default


def iterate(data, batch_size=None, steps=None):
    """Yields the inputs of each batch of `data`, without targets and sample weights.

    Args:
        data: Anything that `model.predict` accepts.
        batch_size: Integer. Examples per batch of arrays, 32 by default. Data that comes in batches
            keeps its own.
        steps: Integer. The most batches to read. Default: all.

    Yields:
        NumPy arrays of shape (batch, ...), nested as in `data`; `None` where it has `None`.

    Raises:
        ValueError: if `data` has an unsupported type, is empty, or has arrays of different lengths.
    """
    for name, value in (("batch_size", batch_size), ("steps", steps)):
        if value is not None:
            positive_integer(value, name)
    arrays = _numpy_leaves(data)
    if arrays:
        batches, most = _slices(data, arrays, batch_size or BATCH_SIZE), None
    else:
        batches, most = _adapted(data, batch_size)
    count = 0
    for batch in itertools.islice(batches, *_least(steps, most)):
        count += 1
        yield batch
    if not count:
        raise ValueError(
            f"`data` must hold one example at least, and it is empty. Received: {describe(data)}"
        )
    if steps and count < steps:
        warnings.warn(
            f"The data end after {count} of {steps} batches: make `steps` smaller, or the data "
            "longer.",
            stacklevel=2,
        )


def calls(data, structure=None):
    """Returns data for `iterate`, also if it has a form that only TensorFlow's tools take.

    Their `representative_dataset` is a function that returns a generator. It yields the inputs of
    one call as an array, a list or a dict, where Keras wants a tuple of inputs and targets. A list
    of such dicts is read in the same way.

    Args:
        data: What `iterate` reads, or what TensorFlow's converter takes.
        structure: As returned by `signature`, or `None` if it is unknown.
    """
    if inspect.isroutine(data):
        data = data()
    if isinstance(data, Iterator) or _is_list_of_calls(data, structure):
        return (call if isinstance(call, tuple) else (call,) for call in data)
    return data


def _is_list_of_calls(data, structure):
    is_nested = isinstance(structure, list | tuple) and any(
        isinstance(part, dict) for part in structure
    )
    if structure is None or is_nested or not isinstance(data, list):
        return False
    return bool(data) and all(isinstance(call, dict) for call in data)


@contextlib.contextmanager
def naming(name):
    """Lets errors about data name the argument of the public function that took them."""
    try:
        yield
    except ValueError as error:
        text = str(error).replace("`data`", f"`{name}`")
        if not text.startswith("`"):
            text = f"`{name}` must be inputs of the model, without labels. {text}"
        raise ValueError(text) from error


def _least(steps, most):
    known = [count for count in (steps, most) if count is not None]
    return (min(known) if known else None,)


def _numpy_leaves(data):
    """Lists the arrays in nested lists and dicts, if all leaves are NumPy arrays or `None`."""
    if isinstance(data, dict):
        parts = data.values()
    elif isinstance(data, list | tuple):
        parts = data
    else:
        return [data] if type(data) is np.ndarray and data.ndim else []
    leaves = []
    for part in parts:
        found = _numpy_leaves(part)
        if part is not None and not found:
            return []
        leaves.extend(found)
    return leaves


def _slices(data, arrays, batch_size):
    sizes = {len(array) for array in arrays}
    if len(sizes) > 1:
        raise ValueError(
            "All arrays must have the same number of examples, their first axis. "
            f"Received: {describe(data)}"
        )
    for start in range(0, sizes.pop(), batch_size):
        yield _sliced(data, slice(start, start + batch_size))


def _sliced(data, part):
    if isinstance(data, dict):
        return {key: _sliced(value, part) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_sliced(value, part) for value in data]
    return None if data is None else data[part]


def _adapted(data, batch_size):
    """Returns an iterator over the inputs of batches, and their number or `None`."""
    try:
        from keras.src.trainers.data_adapters import get_data_adapter
    except ImportError as error:
        raise ImportError(
            "Data other than NumPy arrays are read by Keras, which cannot be imported here: "
            f"{error}. Pass arrays. Received: {describe(data)}"
        ) from error
    try:
        adapter = get_data_adapter(data, batch_size=batch_size)
    except Exception as error:  # `None` gives a `KeyError`, and generators raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0].partition(" Received:")[0][:300]
        raise ValueError(
            "`data` must be what `model.predict` takes: an array, a list or dict of arrays, a "
            "generator of tuples `(inputs,)` or `(inputs, targets)`, a `tf.data.Dataset`, "
            "`keras.utils.PyDataset`, PyTorch `DataLoader`, or pandas frame; Keras says: "
            f"{reason.rstrip('.')}. Received: {describe(data)}"
        ) from error
    return _inputs_of(adapter, data), adapter.num_batches


def _inputs_of(adapter, data):
    import keras

    is_loader = type(adapter).__name__ == "TorchDataLoaderAdapter"
    adapter.on_epoch_begin()
    try:
        # Keras would take apart a loader's batch that is a bare tensor or a dict.
        for batch in data if is_loader else adapter.get_numpy_iterator():
            if is_loader:
                batch = keras.tree.map_structure(_from_torch, batch)
            # Like `keras.utils.unpack_x_y_sample_weight`: a list of two is inputs and targets.
            yield batch[0] if isinstance(batch, list | tuple) else batch
    finally:
        adapter.on_epoch_end()


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
        array = np.asarray(_from_torch(x))
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


def _from_torch(x):
    if not hasattr(x, "detach"):
        return x
    x = x.detach().cpu()
    x = x.float() if str(x.dtype) == "torch.bfloat16" else x  # NumPy has no bfloat16
    return np.asarray(x)


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


def describe(data):
    """Describes data for an error message."""
    if isinstance(data, dict):
        return "a dict with the keys " + (", ".join(repr(key) for key in data) or "(none)")
    if isinstance(data, list | tuple):
        return f"a {type(data).__name__} of {len(data)}"
    shape = getattr(data, "shape", None)
    return type(data).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")
