"""Instructions for convolutions whose sums move in place of the image."""

import dataclasses
import functools
import math

import numpy as np

from keras_trim.inference.kernels.sliding_sums import MOST_SUMS
from keras_trim.inference.kernels.vector import LANES, RESIDUAL
from keras_trim.inference.packing import Columns
from keras_trim.inference.pools import fitting

_LEAST_FULL = 0.6  # part of the vectors of lines that are pixels of the output
_CACHES = (24 * 1024, 40 * 1024)  # bytes of first-level cache for activations
_LEAST_WEIGHTS = 8  # of a row in a block; with fewer, most of the time sums only move
_FEW_SUMS = 10  # vectors


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a product is computed.

    Args:
        lines: Integer. Lines of the output per pass over the weights, at most.
        blocks: Integer. The parts that the input channels are split into.
        is_packed: Boolean. Whether lines are copied for each of these passes, or all of them ahead.
    """

    lines: int
    blocks: int
    is_packed: bool

    def __str__(self):
        lines = f"{self.lines} line{'s' * (self.lines > 1)}"
        blocks = f", {self.blocks} blocks" if self.blocks > 1 else ""
        return f"sparse, sliding, {lines}{blocks}{', packed' * self.is_packed}"


def can_slide(geometry):
    """Whether the sums of a line, with its padding, fit into registers, most of which are used.

    Args:
        geometry: `convolution.Geometry`, whose lines are whole vectors.
    """
    reach = (geometry.kernel[1] - 1) * geometry.dilation[1]
    return (
        reach >= geometry.strides[1]
        and geometry.row <= MOST_SUMS * LANES
        and geometry.out_width >= _LEAST_FULL * geometry.row
        and geometry.out_width > geometry.row - LANES  # no vector is empty
    )


def emit_sliding(builder, kernel, bias, geometry, y, clip, residual):
    """Emits `y = clip(convolution(x) + bias + residual)` in the fastest of its variants.

    Args:
        builder: `plan.Builder`.
        kernel: Array, (height, width, input channels, output channels).
        bias: Array, (output channels,).
        geometry: `convolution.Geometry`, whose lines are whole vectors.
        y: `Tensor`, in planes.
        clip: `Clip`.
        residual: `Tensor` or None. In planes of the shape of y.
    """
    channels, reach = kernel.shape[2], geometry.rows - geometry.out_height
    moves, offsets = geometry.tap_moves(), geometry.tap_offsets()
    matrix = Columns.of_kernel(kernel, 1, 0, np.zeros(len(moves), np.int64), builder.skip_zeros)
    outputs, shifts = len(bias), int(moves.max()) + 1
    y_lines, vectors = np.divmod(np.arange(MOST_SUMS), geometry.row // LANES)
    places = (y_lines * geometry.out_width + vectors * LANES).astype(np.int32)
    pixels = np.arange(geometry.row) - geometry.left
    is_inside = (pixels >= 0) & (pixels < geometry.image[1])
    inside = (is_inside.reshape(-1, LANES) << np.arange(LANES)).sum(axis=1).astype(np.uint16)
    pack = functools.cache(functools.partial(_packed, matrix, moves))  # several variants share it

    def emit(variant, builder):
        lines, together = variant.lines + reach, -(-channels // variant.blocks)
        if variant.is_packed:
            x, number, needed = geometry.x, together, together * lines * geometry.row
            reads = np.arange(channels) % together * lines * geometry.row
        else:
            x, channel = geometry.pad(builder)
            number, needed, reads = 0, 0, np.arange(channels) * channel
        reads = (reads[:, None] + (offsets - moves)).reshape(-1)
        starts, counts, order = pack(variant.blocks)
        if variant.blocks > 1:
            needed += outputs * variant.lines * geometry.row
        scratch = builder.scratch(needed) if needed else (0, 0)
        other = (residual, residual.sample_size) if residual is not None else (0, 0)
        operands = [
            x, x.sample_size, geometry.row, y, y.sample_size, y.plane, y.batch,
            geometry.out_height, geometry.out_width, variant.lines, outputs, shifts, variant.blocks,
            builder.index(starts), builder.index(counts),
            builder.index(fitting(reads[matrix.columns[order]], np.int32)),
            builder.constant(matrix.values[order]), builder.constant(bias), *other, *scratch,
            clip.flag | (RESIDUAL if residual is not None else 0), builder.index(places), number,
            channels, x.plane, *geometry.image, geometry.top, geometry.left, reach,
            builder.short_index(inside),
        ]  # fmt: skip
        builder.emit("sliding", operands, [clip.low, clip.high])

    best = builder.tuner.fastest(
        _variants(matrix, geometry, channels),
        emit,
        likeness=(
            "sliding", kernel.shape, round(20 * matrix.density), geometry.out_height,
            geometry.out_width, geometry.strides, geometry.dilation, y.batch, residual is not None,
        ),
        x=geometry.x, num_threads=builder.num_threads,
    )  # fmt: skip
    builder.choose(str(best))
    emit(best, builder)


def _variants(matrix, geometry, channels):
    """Those worth measuring: few sums and many, and blocks that fit the first-level cache."""
    height, line, found = geometry.out_height, geometry.row // LANES, set()
    can_pack = geometry.is_plain and geometry.x.layout == "planes"
    for most in (_FEW_SUMS, MOST_SUMS):
        parts = -(-height // max(most // line, 1))
        lines = -(-height // parts)
        read = (lines + geometry.rows - height) * math.prod(geometry.phases) * geometry.row
        for cache in _CACHES:
            blocks = min(-(-4 * channels * read // cache), channels)
            if blocks == 1 or len(matrix.values) >= _LEAST_WEIGHTS * blocks * matrix.num_rows:
                found.update(Variant(lines, blocks, packed) for packed in {False, can_pack})
        found.add(Variant(lines, 1, False))
    return sorted(found, key=dataclasses.astuple)


def _packed(matrix, moves, blocks):
    """The order in which weights are multiplied.

    Args:
        matrix: `packing.Columns`, one for each channel and tap.
        moves: Array of integers, (taps,). How far the sums of each move.
        blocks: Integer.

    Returns:
        `(starts, counts, order)`: int32, (blocks, rows), the first weight of each; int32, (blocks,
        rows, sets), the weights that sums do not move between, the farthest first; the numbers of
        the weights.
    """
    sets = int(moves.max()) + 1
    channel, tap = np.divmod(matrix.columns, len(moves))
    channels = len(matrix.offsets) // len(moves)
    block = channel // -(-channels // blocks)
    key = (block * matrix.num_rows + matrix.rows) * sets + sets - 1 - moves[tap]
    counts = np.bincount(key, minlength=blocks * matrix.num_rows * sets)
    starts = np.cumsum(counts.reshape(-1, sets).sum(axis=1))
    starts = np.concatenate([[0], starts[:-1]])
    order = np.argsort(key, kind="stable")
    return fitting(starts, np.int32), fitting(counts, np.int32), order
