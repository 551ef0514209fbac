"""Instructions over strided axes, and the operations that need nothing else."""

import numpy as np

from keras_trim.inference.ir.dtypes import WIDE, converted, is_float, stored
from keras_trim.inference.ir.operations.strided import (
    Cast,
    Constant,
    Pad,
    Permute,
    Repeat,
    Slice,
    Tile,
)
from keras_trim.inference.ir.validation import require
from keras_trim.inference.kernels.instructions import (
    AXES,
    BROADCAST,
    CONSTANT,
    FILL,
    MOVE,
    TRANSPOSE,
)
from keras_trim.inference.lowering.registry import lowers
from keras_trim.inference.program.tensors import Place, Tensor

_SHORT = 8  # a shorter innermost loop costs more to start than to run


def merged_axes(sizes, *strides):
    """Merges axes into as few as possible, in the order of the last strides.

    Args:
        sizes: Sequence of integers.
        strides: Sequences of integers, one per tensor, the output's last.

    Returns:
        The sizes and each of the strides, as lists of equal length.
    """
    axes = [axis for axis in zip(sizes, *strides, strict=True) if axis[0] != 1]
    axes.sort(key=lambda axis: -axis[-1])
    merged = []
    for size, *steps in axes:
        if merged and all(
            outer == step * size for outer, step in zip(merged[-1][1:], steps, strict=True)
        ):
            merged[-1] = (merged[-1][0] * size, *steps)
        else:
            merged.append((size, *steps))
    if len(merged) > 1 and merged[-1][0] < _SHORT <= merged[-2][0]:
        merged[-1], merged[-2] = merged[-2], merged[-1]
    merged = merged or [(1,) + (1,) * len(strides)]
    return tuple([axis[i] for axis in merged] for i in range(1 + len(strides)))


def _padded(values, fill):
    require(len(values) <= AXES, "too many axes")
    return [fill] * (AXES - len(values)) + values


def emit_move(builder, x, y, sizes, x_strides, y_strides):
    """Emits `y[i] = x[i]`; x and y are `Tensor`s or `Place`s."""
    sizes, x_strides, y_strides = merged_axes(sizes, x_strides, y_strides)
    if len(sizes) in (2, 3) and y_strides[-1] == 1 and x_strides[-2] == 1 and x_strides[-1] != 1:
        batch, x_sample, y_sample = (
            (sizes[0], x_strides[0], y_strides[0]) if len(sizes) == 3 else (1, 0, 0)
        )
        builder.emit(
            TRANSPOSE, x=x, y=y, batch=batch, x_sample=x_sample, y_sample=y_sample, rows=sizes[-1],
            columns=sizes[-2], x_row=x_strides[-1], y_row=y_strides[-2],
        )  # fmt: skip
        return
    builder.emit(
        MOVE, x=x, y=y, sizes=_padded(sizes, 1), x_strides=_padded(x_strides, 0),
        y_strides=_padded(y_strides, 0),
    )  # fmt: skip


def emit_broadcast(builder, code, x, y, out):
    """Emits `out = x (+, -, *, ...) y` with NumPy's broadcasting, for any layouts."""
    sizes, *strides = merged_axes(
        out.shape, _broadcast_strides(x, out.shape), _broadcast_strides(y, out.shape), out.strides
    )
    x_strides, y_strides, out_strides = (_padded(steps, 0) for steps in strides)
    builder.emit(
        BROADCAST, x=x, y=y, out=out, function=code, sizes=_padded(sizes, 1), x_strides=x_strides,
        y_strides=y_strides, out_strides=out_strides,
    )  # fmt: skip


def _broadcast_strides(x, shape):
    missing = len(shape) - len(x.shape)
    return (0,) * missing + tuple(
        0 if size == 1 else step for size, step in zip(x.shape, x.strides, strict=True)
    )


@lowers(Permute)
def _lower_permute(op, builder, x):
    require(len(x.shape) == len(op.axes), "a permutation of other axes")
    rank = len(op.axes)
    to_last = (0, *range(2, rank), 1)
    is_to_last = tuple(op.axes) == to_last and rank > 2
    shape = [x.shape[axis] for axis in op.axes]
    y = Tensor(shape, "NCHW" if is_to_last else "NHWC", x.dtype)
    if y.size:
        strides = [x.strides[axis] for axis in op.axes]
        emit_move(builder, x, y, y.shape, strides, y.strides)
    return y


@lowers(Slice)
def _lower_slice(op, builder, x):
    require(len(x.shape) == len(op.steps), "a slice of other axes")
    ranges = [
        range(*slice(*parts).indices(size))
        for size, *parts in zip(x.shape, op.begins, op.ends, op.steps, strict=True)
    ]
    y = Tensor([len(r) for r in ranges], x.layout, x.dtype)
    if y.size and 0 not in y.shape:
        start = sum(r.start * step for r, step in zip(ranges, x.strides, strict=True))
        strides = [r.step * step for r, step in zip(ranges, x.strides, strict=True)]
        emit_move(builder, Place(x, start), y, y.shape, strides, y.strides)
    return y


@lowers(Pad)
def _lower_pad(op, builder, x):
    require(len(x.shape) == len(op.amounts) + 2, "padding of other axes")
    amounts = ((0, 0), *op.amounts, (0, 0))
    sizes = [n + b + a for n, (b, a) in zip(x.shape, amounts, strict=True)]
    y = Tensor([max(n, 0) for n in sizes], x.layout)
    if not y.size:
        return y
    if any(n > 0 for pair in amounts for n in pair):
        builder.emit(FILL, y=y, size=y.size, value=op.value)
    kept = [max(n - max(-b, 0) - max(-a, 0), 0) for n, (b, a) in zip(x.shape, amounts, strict=True)]
    if 0 not in kept:
        source = sum(max(-b, 0) * s for (b, _), s in zip(amounts, x.strides, strict=True))
        target = sum(max(b, 0) * s for (b, _), s in zip(amounts, y.strides, strict=True))
        emit_move(builder, Place(x, source), Place(y, target), kept, x.strides, y.strides)
    return y


@lowers(Repeat)
def _lower_repeat(op, builder, x):
    require(len(x.shape) == len(op.times) + 2, "repeats of other axes")
    times = (1, *op.times, 1)
    y = Tensor([n * t for n, t in zip(x.shape, times, strict=True)], x.layout, x.dtype)
    if y.size:
        sizes = [size for pair in zip(x.shape, times, strict=True) for size in pair]
        x_strides = [step for stride in x.strides for step in (stride, 0)]
        y_strides = [
            step
            for stride, t in zip(y.strides, times, strict=True)
            for step in (stride * t, stride)
        ]
        emit_move(builder, x, y, sizes, x_strides, y_strides)
    return y


@lowers(Tile)
def _lower_tile(op, builder, x):
    require(op.axis < len(x.shape), "a tile of another axis")
    shape, axis, times = list(x.shape), op.axis, op.times
    shape[axis] *= times
    y = Tensor(shape, x.layout, x.dtype)
    if y.size:
        sizes, x_strides, y_strides = ([*t] for t in (x.shape, x.strides, y.strides))
        sizes.insert(axis, times)
        x_strides.insert(axis, 0)
        y_strides.insert(axis, y.strides[axis] * x.shape[axis])
        emit_move(builder, x, y, sizes, x_strides, y_strides)
    return y


@lowers(Constant)
def _lower_constant(op, builder):
    y = Tensor(op.value.shape, "NHWC", str(op.value.dtype))
    if y.size:
        builder.emit(CONSTANT, y=y, size=y.size, constant=builder.constant(op.value))
    return y


@lowers(Cast)
def _lower_cast(op, builder, x):
    if is_float(op.dtype) and x.dtype == "float32":
        return x
    y = Tensor(x.shape, "NHWC", stored(op.dtype))

    def cast(a, out):
        result = a if is_float(op.dtype) else converted(a, op.dtype, op.saturates)
        np.copyto(out, result, casting="unsafe")
        if op.dtype in WIDE and not np.array_equal(out, result):
            raise ValueError(
                "The engine computes with integers of 32 bits, and the model casts numbers to "
                "some that need more. "
                f"Received: {op.dtype} from {result.min()} to {result.max()}"
            )

    builder.host(cast, [x], [y])
    return y
