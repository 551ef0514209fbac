"""Instructions over strided axes, and the operations that are nothing but one of them."""

import dataclasses

import numpy as np

from keras_trim.inference.dtypes import is_float, stored
from keras_trim.inference.kernels.strided import AXES
from keras_trim.inference.operations.base import (
    Operation,
    require,
    require_integers,
    require_number,
)
from keras_trim.inference.tensors import Place, Tensor

LARGEST_RANK = 5  # of the tensors that converters may hand to these operations
_DTYPES = ("float16", "bfloat16", "float32", "float64", "bool", "int8", "int16", "int32", "int64",
           "uint8", "uint16", "uint32", "uint64")  # fmt: skip
_SHORT = 8  # an innermost loop that is not worth its beginning


def merged_axes(sizes, *strides):
    """The same places in as few axes as possible, in the order of the last of the strides.

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
            "transpose",
            [
                x, y, batch, x_sample, y_sample, sizes[-1], sizes[-2], x_strides[-1],
                y_strides[-2],
            ],
        )  # fmt: skip
        return
    builder.emit(
        "move",
        [x, y, *_padded(sizes, 1), *_padded(x_strides, 0), *_padded(y_strides, 0)],
    )


def emit_broadcast(builder, code, x, y, out):
    """Emits `out = x (+, -, *, ...) y`, with the broadcasting of NumPy, whatever the layouts."""
    sizes, *strides = merged_axes(
        out.shape, _broadcast_strides(x, out.shape), _broadcast_strides(y, out.shape), out.strides
    )
    operands = [x, y, out, code, *_padded(sizes, 1)]
    for steps in strides:
        operands += _padded(steps, 0)
    builder.emit("broadcast", operands)


def _broadcast_strides(x, shape):
    missing = len(shape) - len(x.shape)
    return (0,) * missing + tuple(
        0 if size == 1 else step for size, step in zip(x.shape, x.strides, strict=True)
    )


@dataclasses.dataclass
class Permute(Operation):
    """Axes in another order.

    Args:
        axes: Tuple of integers, as NumPy's.
    """

    axes: tuple
    takes_integers = True

    def check(self):
        require_integers(self.axes, None, 0)
        require(sorted(self.axes) == list(range(len(self.axes))), "not an order of axes")

    def lower(self, builder, x):
        require(len(x.shape) == len(self.axes), "a permutation of other axes")
        rank = len(self.axes)
        to_last = (0, *range(2, rank), 1)
        is_to_last = tuple(self.axes) == to_last and rank > 2
        shape = [x.shape[axis] for axis in self.axes]
        y = Tensor(shape, "planes" if is_to_last else "rows", x.dtype)
        if y.size:
            strides = [x.strides[axis] for axis in self.axes]
            emit_move(builder, x, y, y.shape, strides, y.strides)
        return y


@dataclasses.dataclass
class Slice(Operation):
    """x[start : start + step * size : step] along each axis.

    Args:
        begins, ends, steps: Tuples, an axis each: what a Python slice has. An axis of a free size
            may have None in the first two.
    """

    begins: tuple
    ends: tuple
    steps: tuple
    takes_integers = True

    def check(self):
        require(len(self.begins) == len(self.ends) == len(self.steps), "a slice of unequal axes")
        require(0 not in self.steps, "a slice with a step of zero")
        for part in (*self.begins, *self.ends, *self.steps):
            require(part is None or type(part) is int, "a slice without integers")

    def lower(self, builder, x):
        require(len(x.shape) == len(self.steps), "a slice of other axes")
        ranges = [
            range(*slice(*parts).indices(size))
            for size, *parts in zip(x.shape, self.begins, self.ends, self.steps, strict=True)
        ]
        y = Tensor([len(r) for r in ranges], x.layout, x.dtype)
        if y.size and 0 not in y.shape:
            start = sum(r.start * step for r, step in zip(ranges, x.strides, strict=True))
            strides = [r.step * step for r, step in zip(ranges, x.strides, strict=True)]
            emit_move(builder, Place(x, start), y, y.shape, strides, y.strides)
        return y


@dataclasses.dataclass
class Pad(Operation):
    """Constant values around, or parts cut off, along the axes between batch and channels.

    Args:
        amounts: Tuple of pairs of integers, one per axis; negative ones cut off.
        value: Float.
    """

    amounts: tuple
    value: float = 0.0

    def check(self):
        for pair in self.amounts:
            require_integers(pair, 2, -(1 << 24))
        require_number(self.value)

    def lower(self, builder, x):
        require(len(x.shape) == len(self.amounts) + 2, "padding of other axes")
        amounts = ((0, 0), *self.amounts, (0, 0))
        sizes = [n + b + a for n, (b, a) in zip(x.shape, amounts, strict=True)]
        y = Tensor([max(n, 0) for n in sizes], x.layout)
        if not y.size:
            return y
        if any(n > 0 for pair in amounts for n in pair):
            builder.emit("fill", [y, y.size], [self.value])
        kept = [
            max(n - max(-b, 0) - max(-a, 0), 0) for n, (b, a) in zip(x.shape, amounts, strict=True)
        ]
        if 0 not in kept:
            source = sum(max(-b, 0) * s for (b, _), s in zip(amounts, x.strides, strict=True))
            target = sum(max(b, 0) * s for (b, _), s in zip(amounts, y.strides, strict=True))
            emit_move(builder, Place(x, source), Place(y, target), kept, x.strides, y.strides)
        return y


@dataclasses.dataclass
class Repeat(Operation):
    """Each pixel several times along the axes between batch and channels (nearest upsampling).

    Args:
        times: Tuple of integers.
    """

    times: tuple
    takes_integers = True

    def check(self):
        require_integers(self.times, None, 1)

    def lower(self, builder, x):
        require(len(x.shape) == len(self.times) + 2, "repeats of other axes")
        times = (1, *self.times, 1)
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


@dataclasses.dataclass
class Tile(Operation):
    """The whole of an axis several times.

    Args:
        axis: Integer, positive.
        times: Integer.
    """

    axis: int
    times: int
    takes_integers = True

    def check(self):
        require_integers((self.axis, self.times), 2, 1)

    def lower(self, builder, x):
        require(self.axis < len(x.shape), "a tile of another axis")
        shape, axis, times = list(x.shape), self.axis, self.times
        shape[axis] *= times
        y = Tensor(shape, x.layout, x.dtype)
        if y.size:
            sizes, x_strides, y_strides = ([*t] for t in (x.shape, x.strides, y.strides))
            sizes.insert(axis, times)
            x_strides.insert(axis, 0)
            y_strides.insert(axis, y.strides[axis] * x.shape[axis])
            emit_move(builder, x, y, sizes, x_strides, y_strides)
        return y


@dataclasses.dataclass
class Constant(Operation):
    """An array that does not depend on any input.

    Args:
        value: Array, float32 or int32.
    """

    value: np.ndarray

    def check(self):
        known = isinstance(self.value, np.ndarray) and self.value.dtype in (np.float32, np.int32)
        require(known, "a constant must be an array of float32 or int32")

    def lower(self, builder):
        y = Tensor(self.value.shape, "rows", str(self.value.dtype))
        if y.size:
            builder.emit("constant", [y, y.size, builder.constant(self.value)])
        return y


@dataclasses.dataclass
class Cast(Operation):
    """To float32 or int32 (towards zero), or to the range of a narrower type.

    Args:
        dtype: String, as NumPy's.
    """

    dtype: str
    takes_integers = True

    def check(self):
        require(self.dtype in _DTYPES, f"no dtype {self.dtype!r}")

    def lower(self, builder, x):
        if is_float(self.dtype) and x.dtype == "float32":
            return x
        y = Tensor(x.shape, "rows", stored(self.dtype))
        dtype = np.dtype("float32" if is_float(self.dtype) else self.dtype)

        def cast(a, out):
            np.copyto(out, a.astype(dtype), casting="unsafe")

        builder.host(cast, [x], [y])
        return y
