"""kn2row: convolutions whose sums move along the image."""

import dataclasses
import functools
import math

import numpy as np

from keras_trim.inference.kernels.instructions import KN2ROW
from keras_trim.inference.kernels.llvm import LANES, RESIDUAL
from keras_trim.inference.kernels.spmm.kn2row_micro_kernel import MOST_SUMS
from keras_trim.inference.lowering.autotuning import select
from keras_trim.inference.lowering.packing import SparseColumns
from keras_trim.inference.program.constant_pool import fitting

_LEAST_FULL = 0.6  # fraction of a padded line that must be pixels of the output
_CACHES = (24 * 1024, 40 * 1024)  # bytes of first-level cache for activations
_LEAST_WEIGHTS = 8  # of a row in a block; with fewer, moving sums takes most of the time
_FEW_SUMS = 10  # vectors


@dataclasses.dataclass(frozen=True)
class Kn2rowTiling:
    """How a kn2row convolution is computed.

    Args:
        lines: Integer. Output lines per pass over the weights, at most.
        blocks: Integer. The number of parts that the input channels are split into.
        is_packed: Boolean. Whether each pass packs its lines. Otherwise the input is padded first.
    """

    lines: int
    blocks: int
    is_packed: bool

    def __str__(self):
        lines = f"{self.lines} line{'s' * (self.lines > 1)}"
        blocks = f", {self.blocks} blocks" if self.blocks > 1 else ""
        return f"sparse, kn2row, {lines}{blocks}{', packed' * self.is_packed}"


def fits_kn2row(geometry):
    """Whether the sums of a padded line fit into registers, and most of them are used.

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


def emit_kn2row(builder, kernel, bias, geometry, y, clip, residual):
    """Emits the fastest candidate for `y = clip(convolution(x) + bias + residual)`.

    Args:
        builder: `Builder`.
        kernel: Array, (height, width, input channels, output channels).
        bias: Array, (output channels,).
        geometry: `convolution.Geometry`, whose lines are whole vectors.
        y: `Tensor`, NCHW.
        clip: `Clip`.
        residual: `Tensor` or None. NCHW, of the shape of y.
    """
    channels, reach = kernel.shape[2], geometry.rows - geometry.out_height
    moves, offsets = geometry.tap_moves(), geometry.tap_offsets()
    matrix = SparseColumns.of_kernel(
        kernel, 1, 0, np.zeros(len(moves), np.int64), builder.skip_zeros
    )
    outputs, shifts = len(bias), int(moves.max()) + 1
    y_lines, vectors = np.divmod(np.arange(MOST_SUMS), geometry.row // LANES)
    places = (y_lines * geometry.out_width + vectors * LANES).astype(np.int32)
    pixels = np.arange(geometry.row) - geometry.left
    is_inside = (pixels >= 0) & (pixels < geometry.image[1])
    inside = (is_inside.reshape(-1, LANES) << np.arange(LANES)).sum(axis=1).astype(np.uint16)
    pack = functools.cache(functools.partial(_packed, matrix, moves))  # several tilings share it

    def emit(tiling, builder):
        lines, together = tiling.lines + reach, -(-channels // tiling.blocks)
        if tiling.is_packed:
            x, number, needed = geometry.x, together, together * lines * geometry.row
            reads = np.arange(channels) % together * lines * geometry.row
        else:
            x, channel = geometry.pad(builder)
            number, needed, reads = 0, 0, np.arange(channels) * channel
        reads = (reads[:, None] + (offsets - moves)).reshape(-1)
        starts, counts, order = pack(tiling.blocks)
        if tiling.blocks > 1:
            needed += outputs * tiling.lines * geometry.row
        scratch, scratch_size = builder.scratch(needed) if needed else (0, 0)
        other = {}
        if residual is not None:
            other = {"residual": residual, "residual_sample": residual.sample_size}
        builder.emit(
            KN2ROW, x=x, x_sample=x.sample_size, row=geometry.row, y=y, y_sample=y.sample_size,
            plane=y.plane, batch=y.batch, height=geometry.out_height, width=geometry.out_width,
            lines=tiling.lines, outputs=outputs, shifts=shifts, blocks=tiling.blocks,
            starts=builder.index(starts), counts=builder.index(counts),
            offsets=builder.index(fitting(reads[matrix.columns[order]], np.int32)),
            values=builder.constant(matrix.values[order]), bias=builder.constant(bias), **other,
            scratch=scratch, scratch_size=scratch_size,
            flags=clip.flag | (RESIDUAL if residual is not None else 0),
            places=builder.index(places), packed=number, channels=channels, x_plane=x.plane,
            x_height=geometry.image[0], x_width=geometry.image[1], top=geometry.top,
            left=geometry.left, reach=reach, inside=builder.short_index(inside), low=clip.low,
            high=clip.high,
        )  # fmt: skip

    workload = (
        "kn2row", kernel.shape, round(20 * matrix.density), geometry.out_height,
        geometry.out_width, geometry.strides, geometry.dilation, y.batch, residual is not None,
    )  # fmt: skip
    candidates = _candidates(matrix, geometry, channels)
    best, _ = select(builder, candidates, emit, workload, geometry.x)
    builder.label(str(best))


def _candidates(matrix, geometry, channels):
    """Lists tilings worth measuring: few and many sums, and blocks that fit first-level cache."""
    height, line, found = geometry.out_height, geometry.row // LANES, set()
    can_pack = geometry.is_plain and geometry.x.layout == "NCHW"
    for most in (_FEW_SUMS, MOST_SUMS):
        parts = -(-height // max(most // line, 1))
        lines = -(-height // parts)
        read = (lines + geometry.rows - height) * math.prod(geometry.phases) * geometry.row
        for cache in _CACHES:
            blocks = min(-(-4 * channels * read // cache), channels)
            if blocks == 1 or len(matrix.values) >= _LEAST_WEIGHTS * blocks * matrix.num_rows:
                found.update(Kn2rowTiling(lines, blocks, packed) for packed in {False, can_pack})
        found.add(Kn2rowTiling(lines, 1, False))
    return sorted(found, key=dataclasses.astuple)


def _packed(matrix, moves, blocks):
    """Sorts the weights into the order in which the kernel multiplies them.

    Args:
        matrix: `packing.SparseColumns`, one for each channel and tap.
        moves: Array of integers, (taps,). How far the sums of each tap move.
        blocks: Integer.

    Returns:
        `(starts, counts, order)`: int32, (blocks, rows), the first weight of each row; int32,
        (blocks, rows, sets), the number of weights between two moves of the sums, those that move
        farthest first; the indices of the weights in that order.
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
