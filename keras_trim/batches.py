"""Reads whatever `model.predict` accepts, batch by batch.

`iterate` reads arrays, lists and dicts of them, generators, `tf.data.Dataset`,
`keras.utils.PyDataset`, PyTorch's `DataLoader` and pandas frames. NumPy arrays are read without
Keras, everything else by Keras's adapters. `calls` adds the forms of TensorFlow's tools.
"""

import contextlib
import inspect
import itertools
import warnings
from collections.abc import Iterator

import numpy as np

from keras_trim.arguments import positive_integer

BATCH_SIZE = 32  # Keras's default


def iterate(data, batch_size=None, steps=None, name="data"):
    """Yields the inputs of each batch of `data`, without targets and sample weights.

    Args:
        data: Anything that `model.predict` accepts.
        batch_size: Integer. Examples per batch of arrays, 32 by default. Data that comes in batches
            keeps its own.
        steps: Integer. The most batches to read. Default: all.
        name: String. What the public function calls `data`, for error messages.

    Yields:
        NumPy arrays of shape (batch, ...), nested as in `data`; `None` where it has `None`.

    Raises:
        ValueError: if `data` has an unsupported type, is empty, or has arrays of different lengths.
    """
    for argument, value in (("batch_size", batch_size), ("steps", steps)):
        if value is not None:
            positive_integer(value, argument)
    arrays = _numpy_leaves(data)
    if arrays:
        batches, most = _slices(data, arrays, batch_size or BATCH_SIZE), None
    else:
        batches, most = _adapted(data, batch_size, name)
    count = 0
    for batch in itertools.islice(batches, *_least(steps, most)):
        count += 1
        yield batch
    if not count:
        raise ValueError(
            f"`{name}` must hold at least one example, but it is empty. Received: {describe(data)}"
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
        structure: As returned by `model_inputs.signature`, or `None` if it is unknown.
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
    """Lets errors about data begin with the argument of the public function that took them."""
    try:
        yield
    except ValueError as error:
        text = str(error)
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


def _adapted(data, batch_size, name):
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
            f"`{name}` must be what `model.predict` takes: an array, a list or dict of arrays, a "
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
                batch = keras.tree.map_structure(from_torch, batch)
            # Like `keras.utils.unpack_x_y_sample_weight`: a list of two is inputs and targets.
            yield batch[0] if isinstance(batch, list | tuple) else batch
    finally:
        adapter.on_epoch_end()


def from_torch(x):
    """Returns a PyTorch tensor as a NumPy array, and anything else as it is."""
    if not hasattr(x, "detach"):
        return x
    x = x.detach().cpu()
    x = x.float() if str(x.dtype) == "torch.bfloat16" else x  # NumPy has no bfloat16
    return np.asarray(x)


def describe(data):
    """Describes data for an error message."""
    if isinstance(data, dict):
        return "a dict with the keys " + (", ".join(repr(key) for key in data) or "(none)")
    if isinstance(data, list | tuple):
        return f"a {type(data).__name__} of {len(data)}"
    shape = getattr(data, "shape", None)
    return type(data).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")
