"""Converts operations of `keras.ops` that move values: reshape, slice, split, concatenate."""

import math

import numpy as np

from keras_trim.inference.frontend.converters.registry import converts, keras_operations, only
from keras_trim.inference.ir import operations
from keras_trim.inference.ir.operations.strided import LARGEST_RANK


def reshape(reader, x, shape):
    """Adds a reshape to `shape`, which excludes the batch axis."""
    only(sum(n is None or n == -1 for n in shape) <= 1, "several free axes")
    shape = tuple(-1 if n is None else int(n) for n in shape)
    return reader.add(operations.Reshape(shape), [x], reader.name)


@converts(*keras_operations("numpy", "Reshape"))
def _reshape(operation, reader, x):
    shape = operation.newshape
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    only(all(n is None or isinstance(n, int) for n in shape) and shape, "its shape")
    sizes = x.shape[1:]
    known = -1 not in shape[1:] and None not in shape[1:] and None not in sizes
    if shape[0] in (-1, None) and known:
        only(math.prod(shape[1:]) == math.prod(sizes), "a reshape of the batch")
    elif shape[0] != -1 and shape[0] is not None:
        only(shape[0] == x.shape[0], "a reshape of the batch")
    else:
        # Two free axes: a leading None may stand for the batch.
        only(shape[0] is None and x.shape[0] is None, "a reshape of the batch")
        only(reader.keeps_examples_apart(x), "a reshape of the batch")
    return reshape(reader, x, shape[1:])


@converts(*keras_operations("numpy", "ExpandDims"))
def _expand_dims(operation, reader, x):
    axis = operation.axis
    only(isinstance(axis, int), "several axes")
    axis = axis % (len(x.shape) + 1)
    only(axis > 0, "the batch axis")
    return reshape(reader, x, (*x.shape[1:axis], 1, *x.shape[axis:]))


@converts(*keras_operations("numpy", "Squeeze"))
def _squeeze(operation, reader, x):
    axes = operation.axis
    if axes is None:
        only(x.shape[0] != 1 and None not in x.shape[1:], "a free axis")
        axes = [axis for axis, size in enumerate(x.shape) if size == 1]
    axes = [axes] if isinstance(axes, int) else axes
    axes = {axis % len(x.shape) for axis in axes}
    only(0 not in axes, "the batch axis")
    return reshape(reader, x, [n for axis, n in enumerate(x.shape) if axis and axis not in axes])


def permute(reader, x, axes):
    """Adds a permutation of axes, as `np.transpose`."""
    rank = len(x.shape)
    axes = tuple(axis % rank for axis in axes)
    only(rank <= LARGEST_RANK, "many axes")
    only(axes[0] == 0, "the batch axis")
    return reader.add(operations.Permute(axes), [x], reader.name)


@converts(*keras_operations("numpy", "Transpose"))
def _transpose(operation, reader, x):
    only(operation.axes is not None, "the batch axis")
    return permute(reader, x, operation.axes)


@converts(*keras_operations("numpy", "Swapaxes"))
def _swapaxes(operation, reader, x):
    axes = list(range(len(x.shape)))
    a, b = operation.axis1, operation.axis2
    axes[a], axes[b] = axes[b], axes[a]
    return permute(reader, x, axes)


@converts(*keras_operations("numpy", "Moveaxis"))
def _moveaxis(operation, reader, x):
    rank = len(x.shape)
    source = [axis % rank for axis in operation.source]
    target = [axis % rank for axis in operation.destination]
    axes = [axis for axis in range(rank) if axis not in source]
    for to, axis in sorted(zip(target, source, strict=True)):
        axes.insert(to, axis)
    return permute(reader, x, axes)


@converts(*keras_operations("numpy", "Concatenate"))
def _concatenate(operation, reader, inputs):
    symbols = all(isinstance(x, reader.symbol) for x in inputs)
    only(symbols and inputs[0].shape, "an array")
    axis = operation.axis % len(inputs[0].shape)
    only(axis > 0, "the batch axis")
    return reader.add(operations.Concatenate(axis), inputs, reader.name)


@converts(*keras_operations("numpy", "Stack"))
def _stack(operation, reader, inputs):
    only(all(isinstance(x, reader.symbol) for x in inputs), "an array")
    rank = len(inputs[0].shape) + 1
    axis = operation.axis % rank
    only(axis > 0, "the batch axis")
    shape = inputs[0].shape
    parts = [reshape(reader, x, (*shape[1:axis], 1, *shape[axis:])) for x in inputs]
    return reader.add(operations.Concatenate(axis), parts, reader.name)


@converts(*keras_operations("numpy", "Split"))
def _split(operation, reader, x):
    rank = len(x.shape)
    axis = operation.axis % rank
    size, where = x.shape[axis], operation.indices_or_sections
    only(axis > 0 and size is not None and rank <= LARGEST_RANK, "its axis")
    if isinstance(where, int):
        where = [size // where * i for i in range(1, where)]
    begins, ends = [0, *where], [*where, size]
    return [
        slice_of(reader, x, {axis: slice(begin, end)})
        for begin, end in zip(begins, ends, strict=True)
    ]


def slice_of(reader, x, slices):
    """Adds a slice of x; `slices` is a dictionary, axis -> slice."""
    slices = [slices.get(axis, slice(None)) for axis in range(len(x.shape))]
    begins, ends, steps = zip(*((s.start, s.stop, s.step) for s in slices), strict=True)
    return reader.add(operations.Slice(begins, ends, steps), [x], reader.name)


@converts(*keras_operations("numpy", "GetItem"))
def _get_item(operation, reader, x, key):
    key = list(key) if isinstance(key, list | tuple) else [key]
    only(
        all(isinstance(k, int | slice) or k is None or k is Ellipsis for k in key),
        "an index that is a tensor",
    )
    rank = len(x.shape)
    only(rank <= LARGEST_RANK, "many axes")
    given = sum(k is not None and k is not Ellipsis for k in key)
    if Ellipsis not in key:
        key.append(Ellipsis)
    at = key.index(Ellipsis)
    key[at : at + 1] = [slice(None)] * (rank - given)
    slices, shape, axis = {}, [], 0
    for k in key:
        if k is None:
            shape.append(1)
            continue
        size = x.shape[axis]
        if isinstance(k, int):
            only(axis > 0, "the batch axis")
            # For -1, k + 1 would be 0, so the end stays open.
            slices[axis] = slice(k, k + 1 if k != -1 else None)
        else:
            parts = (k.start, k.stop, k.step)
            only(all(part is None or isinstance(part, int) for part in parts), "its bounds")
            only(axis > 0 or k == slice(None), "the batch axis")
            if k != slice(None):
                slices[axis] = k
            shape.append(len(range(*k.indices(size))) if size is not None else None)
        axis += 1
    only(shape and key[0] is not None, "the batch axis")
    y = slice_of(reader, x, slices) if slices else x
    is_plain = all(isinstance(k, slice) for k in key)
    return y if is_plain and slices else reshape(reader, y, shape[1:])


@converts(*keras_operations("numpy", "Pad"))
def _pad(operation, reader, x, constant_values=None):
    amounts, rank = [tuple(pair) for pair in operation.pad_width], len(x.shape)
    amounts = amounts * rank if len(amounts) == 1 else amounts
    only(operation.mode == "constant" and rank in (3, 4), "its mode")
    only(amounts[0] == amounts[-1] == (0, 0), "padding of batch or channels")
    only(constant_values is None or isinstance(constant_values, int | float), "its value")
    value = float(constant_values or 0.0)
    return reader.add(operations.Pad(tuple(amounts[1:-1]), value), [x], reader.name)


@converts(*keras_operations("numpy", "Repeat"))
def _repeat(operation, reader, x):
    rank = len(x.shape)
    only(isinstance(operation.repeats, int) and operation.axis is not None, "its repeats")
    axis = operation.axis % rank
    only(0 < axis < rank - 1 and rank <= LARGEST_RANK, "its axis")
    times = tuple(operation.repeats if i == axis else 1 for i in range(1, rank - 1))
    return reader.add(operations.Repeat(times), [x], reader.name)


@converts(*keras_operations("numpy", "Flip"))
def _flip(operation, reader, x):
    axes = _axes(x, operation.axis)
    return slice_of(reader, x, {axis: slice(None, None, -1) for axis in axes})


@converts(*keras_operations("numpy", "Roll"))
def _roll(operation, reader, x):
    only(isinstance(operation.axis, int), "several axes")
    (axis,) = _axes(x, operation.axis)
    size = x.shape[axis]
    only(isinstance(operation.shift, int) and size, "its shift")
    start = -operation.shift % size
    if not start:
        return x
    parts = [slice_of(reader, x, {axis: part}) for part in (slice(start, None), slice(0, start))]
    return reader.add(operations.Concatenate(axis), parts, reader.name)


def _axes(x, axis):
    """One or several axes as a list of nonnegative integers."""
    only(axis is not None and len(x.shape) <= LARGEST_RANK, "the batch axis")
    axes = [a % len(x.shape) for a in np.atleast_1d(axis).tolist()]
    only(0 not in axes, "the batch axis")
    return axes


@converts(*keras_operations("numpy", "Tile"))
def _tile(operation, reader, x):
    repeats = operation.repeats
    repeats = [repeats] if isinstance(repeats, int) else list(repeats)
    rank = len(x.shape)
    only(len(repeats) <= rank <= LARGEST_RANK, "more axes")
    repeats = [1] * (rank - len(repeats)) + repeats
    only(repeats[0] == 1 and all(isinstance(n, int) and n > 0 for n in repeats), "its repeats")
    for axis, times in enumerate(repeats):
        if times > 1:
            x = reader.add(operations.Tile(axis, times), [x], reader.name)
    return x
