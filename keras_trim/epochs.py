"""Epochs and steps: counts the batches in data."""

import math
from typing import Any

import keras

from keras_trim.arguments import described, is_integer, positive_integer

_DEFAULT_BATCH_SIZE = 32  # of Keras's `fit`


def count_steps(data: Any, batch_size: int | None = None) -> int:
    """Returns the number of batches in an epoch of `fit`.

    Args:
        data: An array, nested arrays, or a dataset or loader that has a length. Or an integer, the
            number of batches.
        batch_size: Integer, or `None` (32). Only for arrays.

    Returns:
        Integer, at least 1.

    Raises:
        ValueError: if the batches cannot be counted, or `batch_size` is not a positive integer.
    """
    if batch_size is not None:
        batch_size = positive_integer(batch_size, "batch_size")
    if is_integer(data):
        count = int(data)
    elif _are_arrays(data):
        size = len(keras.tree.flatten(data)[0])
        count = math.ceil(size / (batch_size or _DEFAULT_BATCH_SIZE))
    else:
        count = _length(data)
        if batch_size is not None:
            raise ValueError(
                "`batch_size` is for arrays; this data comes in batches already: leave it out. "
                f"Received: batch_size={batch_size}, data={described(data)}"
            )
    if count < 1:
        raise ValueError(f"`data` must hold at least one batch. Received: data={described(data)}")
    return count


def _are_arrays(data: Any) -> bool:
    leaves = keras.tree.flatten(data)
    return bool(leaves) and all(hasattr(leaf, "shape") and len(leaf.shape) for leaf in leaves)


def _length(data: Any) -> int:
    if hasattr(data, "num_batches"):  # `keras.utils.PyDataset`
        count = data.num_batches
    else:
        try:
            count = len(data)
        except TypeError:  # generators, and datasets that TensorFlow cannot count
            count = None
    if count is None or isinstance(data, (str, list, tuple, dict)):
        raise ValueError(
            "The batches in `data` cannot be counted: pass how many there are in an epoch, an "
            f"integer, in its place. Received: data={described(data)}"
        )
    return int(count)
