"""Instructions for products of weights with many pixels, or rows, at a time."""

import numpy as np

from keras_trim.inference.kernels.convolution import CHUNK, DIRECT, GAPPED, LINES, STACKED
from keras_trim.inference.kernels.gaps import IS_AVAILABLE as HAS_TABLES
from keras_trim.inference.kernels.gaps import gaps_of_rows
from keras_trim.inference.kernels.register_tile import WIDEST
from keras_trim.inference.kernels.threads import share
from keras_trim.inference.kernels.vector import LANES, RESIDUAL
from keras_trim.inference.operations.base import Clip
from keras_trim.inference.operations.row_products import FEW_ROWS, emit_row_product
from keras_trim.inference.packing import Columns, row_groups
from keras_trim.inference.tensors import Place, Tensor, channels_of, view_of

_WIDE = 2  # times as many inputs as outputs
_MOST_TURNS = 4  # of sums in a ring; threads wait for each other after each


def emit_product(
    builder, columns, bias, x, y, pixels, row, size, clip=Clip(), residual=None  # noqa: B008
):  # fmt: skip
    """Emits `y = clip(weights * x + bias + residual)` in the fastest of its variants.

    Args:
        builder: `plan.Builder`.
        columns: `packing.Columns`, the weights.
        bias: Array, (output channels,).
        x: `Tensor`, padded where the offsets of `columns` need it.
        y: `Tensor`, in planes.
        pixels: Integer. How many sums per channel, counted in rows of `row`.
        row: Integer. Pixels per row of x, or 0 where those of x and y are the same.
        size: (width, height) of the output.
        clip: `Clip`.
        residual: `Tensor` or None. In planes of the shape of y.
    """
    way_of_rows = DIRECT if row == 0 else LINES if size[0] % LANES == 0 else GAPPED
    vectors = size[0] // LANES if way_of_rows == LINES else -(-pixels // LANES)

    def emit(variant, builder):
        groups = row_groups(columns, variant.tile)
        blocks, widest = variant.blocks, min(variant.vectors, vectors)
        way, most = way_of_rows, -(-vectors // -(-vectors // widest))
        if variant.is_stacked:
            way, widest, most = STACKED, variant.vectors, variant.vectors
        starts, copy, lines = columns.copies(variant.is_stacked)
        copies = -(-len(starts) // blocks)
        offsets, length = columns.offsets, 0  # of a copy, in floats
        if variant.is_packed:
            length = (widest + (columns.reach if variant.is_stacked else 0)) * LANES
            offsets = copy % copies * length + lines * LANES
        packed = columns.pack(groups, blocks, copy // copies, offsets)
        rows = len(bias) if blocks > 1 else CHUNK * int(groups[:, 1].max())
        if way < GAPPED and groups[0, 1] == 1 and not variant.is_packed:
            most = WIDEST  # where threads share out pixels
        has_sums = way >= GAPPED or blocks > 1
        needed = copies * length + (rows * most * LANES if has_sums else 0)
        scratch, scratch_size = builder.scratch(needed) if needed else (0, 0)
        flags = clip.flag | (RESIDUAL if residual is not None else 0)
        tables = 0, 0
        if HAS_TABLES and way == GAPPED:
            firsts, masks = gaps_of_rows(size[1], size[0], 0, 0, size[1], row)
            tables = builder.index(firsts), builder.short_index(masks)
        inside = 0, 0, 0
        if columns.masks:
            masks = columns.masks[variant.is_stacked]
            inside = builder.short_index(masks), *masks.shape
        operands = [
            x, x.sample_size, y, y.sample_size, y.batch, y.plane, pixels, row or size[0], *size,
            builder.index(packed.runs), len(packed.runs), builder.index(packed.table), len(groups),
            blocks, builder.index(packed.offsets),
            builder.constant(packed.values), builder.constant(np.append(bias, np.zeros(8))),
            residual if residual is not None else 0,
            residual.sample_size if residual is not None else 0,
            scratch, scratch_size, flags, widest, way,
            *((builder.index(starts), len(starts), copies, length) if length else (0, 0, 0, 0)),
            *tables, *inside,
        ]  # fmt: skip
        builder.emit("convolution", operands, [clip.low, clip.high])

    variants = builder.tuner.variants(columns, vectors, size)
    best = builder.tuner.fastest(
        variants,
        emit,
        likeness=(
            "convolution", columns.num_rows, len(columns.offsets), columns.row_sets,
            round(20 * columns.density), pixels, row, y.batch, residual is not None,
            columns.masks is not None,
        ),
        x=x, num_threads=builder.num_threads,
    )  # fmt: skip
    builder.choose(f"{best}, masked" if columns.masks else str(best))
    emit(best, builder)


def emit_pointwise(builder, kernel, bias, x, y, clip=Clip(), residual=None):  # noqa: B008
    """Emits `y = clip(x @ kernel + bias + residual)` for each pixel of planes.

    Where vectors leave a few pixels over, these can be rows of a product of their own: 49 pixels
    are three vectors and one pixel, which would take as long as a vector. So can be the few pixels
    that there are behind global pooling.

    Where there are several threads and more inputs than outputs, sums can go from one to the next
    in place of activations.

    Args:
        builder: `plan.Builder`.
        kernel: Array, (inputs, outputs).
        bias: Array, (outputs,).
        x, y: `Tensor`s, in planes.
        clip: `Clip`.
        residual: `Tensor` or None. In planes of the shape of y.
    """
    columns = Columns.of_matrix(kernel, x.plane, builder.skip_zeros)
    pixels, left = x.pixels, x.pixels % LANES
    can_split = residual is None and 0 < x.batch * left <= FEW_ROWS
    inputs, outputs = kernel.shape
    can_pass_on = (
        residual is None
        and x.batch == 1
        and 1 < builder.num_threads <= min(outputs, _MOST_TURNS)
        and inputs >= _WIDE * outputs
    )

    def emit(way, builder):
        if way == "columns":
            _emit_columns(builder, kernel, bias, x, y, clip)
            return
        split = pixels - left if way == "split" else pixels
        if split:
            emit_product(builder, columns, bias, x, y, split, 0, (split, 1), clip, residual)
        if way == "split":
            _emit_last_pixels(builder, kernel, bias, x, y, split, clip)

    ways = ["whole"] + ["split"] * can_split + ["columns"] * can_pass_on
    likeness = ("pointwise", kernel.shape, round(20 * columns.density), x.batch, pixels)
    way = builder.tuner.fastest(ways, emit, likeness, x, builder.num_threads)
    emit(way, builder)


def _emit_columns(builder, kernel, bias, x, y, clip):
    """Emits the product of an image, of which each thread takes the channels that it made itself.

    The rows of weights are in as many parts as there are threads. A thread adds its channels to the
    sums of one part, and the next thread adds its own to these, until all have: a reduction in a
    ring. No channel of x goes from one core to another, but sums do, which are fewer.
    """
    threads, (inputs, outputs) = builder.num_threads, kernel.shape
    sums = [None] * threads  # of each part
    for turn in range(threads):
        is_last, bands = turn == threads - 1, []
        for thread in range(threads):
            part = (thread + turn + 1) % threads  # in the last turn, the one of the same number
            first, last = share(inputs, thread, threads)
            begin, end = share(outputs, part, threads)
            columns = Columns.of_matrix(kernel[first:last, begin:end], x.plane, builder.skip_zeros)
            residual = view_of(sums[part]) if turn else None
            if not is_last:
                sums[part] = Tensor((*y.shape[:-1], end - begin), "planes")
            alone = builder.alone(builder.tuner)
            alone.node = builder.node
            emit_product(
                alone, columns, np.zeros(end - begin, np.float32) if turn else bias[begin:end],
                channels_of(x, first, last),
                channels_of(y, begin, end) if is_last else view_of(sums[part]),
                x.pixels, 0, (x.pixels, 1), clip if is_last else Clip(), residual,
            )  # fmt: skip
            bands.append(alone)
        builder.emit_bands(bands)
    for choice in bands[0].choices[builder.node]:
        builder.choose(f"{choice}; each thread its channels")


def _emit_last_pixels(builder, kernel, bias, x, y, first, clip):
    """Emits the product for the pixels from `first` on, as rows."""
    (inputs, outputs), left = kernel.shape, x.pixels - first
    rows = Tensor((x.batch, left, inputs), "rows")
    sums = Tensor((x.batch, left, outputs), "rows")
    builder.emit(
        "transpose",
        [
            Place(x, first), rows, x.batch, x.sample_size, rows.sample_size, inputs, left, x.plane,
            inputs,
        ],
    )  # fmt: skip
    emit_row_product(builder, kernel, bias, rows, sums, x.batch * left, clip)
    builder.emit(
        "transpose",
        [
            sums, Place(y, first), x.batch, sums.sample_size, y.sample_size, left, outputs, outputs,
            y.plane,
        ],
    )  # fmt: skip
