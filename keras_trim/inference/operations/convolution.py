"""Convolutions, 1 and 2-dimensional, of any kernel size, stride, padding, dilation and groups."""

import dataclasses
import math

import numpy as np

from keras_trim.inference.kernels.edges import MOST_MASKS, masks_of_taps
from keras_trim.inference.kernels.gaps import IS_AVAILABLE as HAS_TABLES
from keras_trim.inference.kernels.gaps import gaps_of_rows
from keras_trim.inference.kernels.vector import LANES
from keras_trim.inference.operations.base import (
    INFINITY,
    Clip,
    Operation,
    padding_of,
    require,
    require_integers,
    require_number,
    require_padding,
    require_weights,
)
from keras_trim.inference.operations.plane_products import emit_pointwise, emit_product
from keras_trim.inference.operations.row_products import FEW_ROWS, emit_row_product
from keras_trim.inference.operations.sliding import can_slide, emit_sliding
from keras_trim.inference.packing import Columns
from keras_trim.inference.tensors import SLACK, Tensor, plane_size, round_up


@dataclasses.dataclass
class Geometry:
    """How a window moves over planes, with padding written out and strides taken apart.

    The padded input has `phases` planes per channel, of `rows` x `row` pixels each.

    `x` may be in the layout "rows" where `pad` takes it, `can_split`.
    """

    x: Tensor
    kernel: tuple
    strides: tuple
    dilation: tuple
    padding: tuple  # per axis: "valid", "same", "causal" or a pair
    spread: tuple = (1, 1)  # transposed convolutions: distance of the input's pixels
    multiple: int = 1  # of pixels, that rows are as long as

    def __post_init__(self):
        height, width = self.image
        sizes = [(n - 1) * s + 1 for n, s in zip((height, width), self.spread, strict=True)]
        axes = zip(self.padding, sizes, self.kernel, self.strides, self.dilation, strict=True)
        (self.out_height, top, _), (self.out_width, left, _) = (padding_of(*axis) for axis in axes)
        # The one row of a signal in time is no axis of the output.
        require(len(self.x.shape) == 4 or self.out_height == 1, "a window of several rows")
        self.top, self.left = top, left
        reach = [(k - 1) * d for k, d in zip(self.kernel, self.dilation, strict=True)]
        self.phases = tuple(min(s, r + 1) for s, r in zip(self.strides, reach, strict=True))
        self.rows = self.out_height + reach[0] // self.strides[0]
        self.row = round_up(self.out_width + reach[1] // self.strides[1], self.multiple)
        # Room for whole vectors behind the last row, which may begin `left` pixels late.
        self.plane = plane_size(self.rows * self.row + max(left, 0) + LANES)
        self.is_plain = self.strides == self.spread == (1, 1)
        is_unpadded = (self.top, self.left, self.row) == (0, 0, width) and self.rows <= height
        self.is_copied = not (self.is_plain and is_unpadded)
        self.is_pointwise = (
            self.kernel == (1, 1)
            and self.strides == (1, 1)
            and (top, left) == (0, 0)
            and (self.out_height, self.out_width) == (height, width)
        )
        # The copy of each row reads on to the end of its padding.
        pixel = 1 if self.x.layout == "planes" else self.x.channels  # in floats
        overrun = round_up(self.row) * min(self.strides[1], 2) - width
        self.x.require_slack(SLACK + pixel * overrun)

    @property
    def image(self):
        """(height, width) of the input."""
        return spatial(self.x)

    def in_vectors(self):
        """The same with rows of whole vectors."""
        return dataclasses.replace(self, multiple=LANES)

    @property
    def can_split(self):
        """Whether padding takes the input pixel by pixel, as images in color often come."""
        return self.is_copied and self.x.channels == 3 and self.x.other_layout is None

    def _taps(self):
        """How far each tap of the kernel reaches, (taps,), down and to the right."""
        y, x = np.divmod(np.arange(self.kernel[0] * self.kernel[1]), self.kernel[1])
        return y * self.dilation[0], x * self.dilation[1]

    def tap_lines(self):
        """How many lines of its plane each tap reads below the first one, (taps,)."""
        return self._taps()[0] // self.strides[0]

    def tap_offsets(self):
        """Where each tap of the kernel reads, (taps,), within the planes of a channel."""
        y, x = self._taps()
        phase = y % self.strides[0] * self.phases[1] + x % self.strides[1]
        return phase * self.plane + y // self.strides[0] * self.row + x // self.strides[1]

    def tap_moves(self):
        """How far to the right of the first one each tap reads, in its plane, (taps,)."""
        return self._taps()[1] // self.strides[1]

    @property
    def can_mask(self):
        """Whether lines of the output are as long as those of the input, and masks not many."""
        bits = self.rows * round_up(self.out_width) * math.prod(self.kernel)
        return self.is_plain and self.out_width == self.image[1] and bits <= MOST_MASKS

    def masked(self):
        """Where each tap reads, as `tap_offsets`, of an image that is not padded.

        Returns:
            `(shifts, masks)`; `masks` as `packing.Columns` has them.
        """
        taps = np.stack(self._taps(), axis=1) - (self.top, self.left)
        image, lines, line = self.image, self.rows, round_up(self.out_width)
        shifts, masks = masks_of_taps(*image, taps, self.out_height)
        _, stacked = masks_of_taps(*image, taps[: self.kernel[1]], lines, line)
        return shifts, (masks, stacked)

    def pad(self, builder):
        """Emits the padded copy, if there is something to do and no layer before had the same;
        returns it and its floats per channel.
        """
        if not self.is_copied:
            return self.x, self.x.plane
        height, width = self.image
        channel = self.phases[0] * self.phases[1] * self.plane
        likeness = (
            self.x, self.plane, self.rows, self.row, self.top, self.left, self.strides, self.spread,
            self.phases,
        )  # fmt: skip
        if likeness in builder.padded:
            return builder.padded[likeness], channel
        padded = Tensor((self.x.batch, self.x.channels * channel), "rows")
        builder.padded[likeness] = padded
        builder.require_memory(padded.size)
        tables = 0, 0, 0
        is_plain = self.x.layout == "planes" and self.is_plain
        if HAS_TABLES and is_plain and self.left >= 0 and self.row >= self.left + width:
            starts, masks = gaps_of_rows(height, width, self.top, self.left, self.rows, self.row)
            tables = builder.index(starts), builder.short_index(masks), len(masks)
        builder.emit(
            "pad",
            [
                self.x, self.x.sample_size, self.x.plane, padded, padded.sample_size, channel,
                self.x.batch, self.x.channels, height, width, self.plane, self.row, self.rows,
                self.top, self.left, *self.strides, *self.spread, *self.phases, *tables,
            ],
            [0.0],
        )  # fmt: skip
        return padded, channel


_CACHE = 16 * 1024  # bytes of first-level cache for padded channels


def planes_together(geometry):
    """How many channels to pad before they are computed.

    A load right behind a store of a part of what it loads waits for it.
    """
    size = 4 * geometry.phases[0] * geometry.phases[1] * geometry.plane
    return max(1, min(8, _CACHE // size))


def spatial(x):
    """(height, width) of a tensor of rank 3, whose height is 1, or 4."""
    return (1, x.shape[1]) if len(x.shape) == 3 else x.shape[1:3]


def output_tensor(x, geometry, channels):
    size = (geometry.out_height, geometry.out_width)[-(len(x.shape) - 2) :]
    return Tensor((x.batch, *size, channels), "planes")


@dataclasses.dataclass
class Convolution(Operation):
    """y = clip(convolution(x) + bias + residual).

    Args:
        kernel: Array, float32, (height, width, input channels / groups, output channels).
        bias: Array, float32, (output channels,).
        low, high: Floats. What the output is clipped to.
        strides, dilation: Pairs of integers.
        padding: Pair, per axis "valid", "same", "causal" or (before, after).
        groups: Integer.
        spread: Pair of integers, the distance of the input's pixels (transposed convolutions).
        residual: Boolean. Whether a second input, of the output's shape, is added before the clip.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strides: tuple = (1, 1)
    padding: tuple = ("valid", "valid")
    dilation: tuple = (1, 1)
    groups: int = 1
    spread: tuple = (1, 1)
    low: float = -INFINITY
    high: float = INFINITY
    residual: bool = False

    @property
    def window(self):
        """(height, width) of the kernel."""
        return self.kernel.shape[:2]

    def check(self):
        require_weights(self.kernel, None, None, None, None)
        require_weights(self.bias, self.kernel.shape[3])
        require_integers((*self.kernel.shape, self.groups), 5, 1)
        require(self.kernel.shape[3] % self.groups == 0, "filters must be a multiple of groups")
        for pair in (self.strides, self.dilation, self.spread):
            require_integers(pair, 2, 1)
        require_padding(self.padding)
        require_number(self.low)
        require_number(self.high)

    def lower(self, builder, x, residual=None, *, out=None):
        channels = self.kernel.shape[2] * self.groups
        require(len(x.shape) in (3, 4) and x.channels == channels, "a convolution's channels")
        require((residual is not None) == bool(self.residual), "a convolution's residual")
        clip = Clip(self.low, self.high)
        geometry = Geometry(x, self.window, self.strides, self.dilation, self.padding, self.spread)
        is_pointwise = geometry.is_pointwise and self.spread == (1, 1)
        is_product = is_pointwise and self.groups == 1
        is_free = residual is None and out is None
        if is_product and is_free and x.layout == "rows" and 0 < x.batch * x.pixels <= FEW_ROWS:
            # Such as the pixel that there is behind global pooling.
            y = Tensor((*x.shape[:-1], self.kernel.shape[3]), "rows")
            emit_row_product(builder, self.kernel[0, 0], self.bias, x, y, x.batch * x.pixels, clip)
            return y
        if not geometry.can_split:
            x = builder.planes(x)
            geometry = dataclasses.replace(geometry, x=x)
        y = output_tensor(x, geometry, self.kernel.shape[3])
        if out is not None:
            require(out.shape == y.shape, "an output of another shape")
            y = out
        if y.size == 0:
            return y
        if residual is not None:
            require(residual.shape == y.shape, "a residual of another shape")
            residual = builder.planes(residual)
        if is_product:
            emit_pointwise(builder, self.kernel[0, 0], self.bias, x, y, clip, residual)
            return y
        ways = {"whole": self._whole} if is_pointwise else {"shifted": self._shifted}
        # What lies between two rows is computed for nothing, and left out of each output.
        is_gapped = geometry.row != geometry.out_width and geometry.out_width % LANES
        columns = self.kernel[..., 0].size
        if is_gapped and self.groups == 1 and columns <= self.kernel.shape[3]:
            ways["unfolded"] = self._unfolded
        if geometry.is_copied and geometry.can_mask and x.layout == "planes":
            ways["masked"] = self._masked

        is_sparse = builder.tuner.tries_sparse(np.mean(self.kernel != 0))
        if is_sparse and self.groups == 1 and can_slide(geometry.in_vectors()):
            ways["sliding"] = self._sliding

        def emit(way, builder):
            ways[way](builder, geometry, x, y, clip, residual)

        way = builder.tuner.fastest(
            list(ways),
            emit,
            likeness=(
                "ways", self.kernel.shape, round(20 * np.mean(self.kernel != 0)), x.shape, x.layout,
                self.strides, self.padding, self.dilation, self.spread, residual is not None,
            ),
            x=x, num_threads=builder.num_threads,
        )  # fmt: skip
        emit(way, builder)
        return y

    def _whole(self, builder, geometry, x, y, clip, residual):
        """Emits a product of groups of channels, pixel by pixel."""
        no_shift = np.zeros(1, np.int64)
        columns = Columns.of_kernel(self.kernel, self.groups, x.plane, no_shift, builder.skip_zeros)
        size = geometry.out_width, geometry.out_height
        emit_product(builder, columns, self.bias, x, y, x.pixels, 0, size, clip, residual)

    def _shifted(self, builder, geometry, x, y, clip, residual):
        """Emits a product whose columns are shifted copies of the padded input."""
        padded, channel = geometry.pad(builder)
        row = 0 if geometry.row == geometry.out_width else geometry.row
        pixels = (geometry.out_height - 1) * geometry.row + geometry.out_width
        columns = Columns.of_kernel(
            self.kernel, self.groups, channel, geometry.tap_offsets(), builder.skip_zeros,
            geometry.tap_lines(), geometry.row,
        )  # fmt: skip
        size = geometry.out_width, geometry.out_height
        emit_product(builder, columns, self.bias, padded, y, pixels, row, size, clip, residual)

    def _masked(self, builder, geometry, x, y, clip, residual):
        """Emits a product whose columns are shifted copies of the input as it is."""
        shifts, masks = geometry.masked()
        columns = Columns.of_kernel(
            self.kernel, self.groups, x.plane, shifts, builder.skip_zeros, geometry.tap_lines(),
            geometry.out_width,
        )  # fmt: skip
        columns.masks = masks
        size = geometry.out_width, geometry.out_height
        emit_product(builder, columns, self.bias, x, y, math.prod(size), 0, size, clip, residual)

    def _sliding(self, builder, geometry, x, y, clip, residual):
        """Emits a product whose sums move along lines that are whole vectors."""
        lines = geometry.in_vectors()
        emit_sliding(builder, self.kernel, self.bias, lines, y, clip, residual)

    def _unfolded(self, builder, geometry, x, y, clip, residual):
        """Emits the copies and a product with them, of whole planes."""
        padded, channel = geometry.pad(builder)
        taps, inputs, outputs = math.prod(self.kernel.shape[:2]), *self.kernel.shape[2:]
        unfolded = Tensor((*y.shape[:-1], inputs * taps), "planes")
        builder.emit(
            "unfold",
            [
                padded, padded.sample_size, channel, unfolded, unfolded.sample_size,
                unfolded.plane, x.batch, inputs, geometry.rows, geometry.row,
                geometry.out_height, geometry.out_width, taps,
                builder.index(geometry.tap_offsets()),
            ],
        )  # fmt: skip
        matrix = self.kernel.reshape(taps, inputs, outputs).swapaxes(0, 1).reshape(-1, outputs)
        emit_pointwise(builder, matrix, self.bias, unfolded, y, clip, residual)

    def multiply_adds(self, input_shape, output_shape):
        pixels = int(np.prod(output_shape[:-1]))
        return pixels * self.kernel.size, pixels * int(np.count_nonzero(self.kernel))
