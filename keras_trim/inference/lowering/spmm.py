"""SpMM: products of weights with many pixels, or rows, at a time."""

import numpy as np

from keras_trim.inference.kernels.instructions import SPMM, TRANSPOSE
from keras_trim.inference.kernels.layout.expand_compress import IS_AVAILABLE as HAS_EXPAND
from keras_trim.inference.kernels.layout.expand_compress import row_tables
from keras_trim.inference.kernels.llvm import LANES, RESIDUAL
from keras_trim.inference.kernels.spmm.micro_kernel import WIDEST
from keras_trim.inference.kernels.spmm.spmm import CHUNK, DIRECT, GAPPED, LINES
from keras_trim.inference.kernels.work_sharing import share
from keras_trim.inference.lowering.autotuning import select
from keras_trim.inference.lowering.clip import Clip
from keras_trim.inference.lowering.packing import SparseColumns, row_groups
from keras_trim.inference.lowering.spmm_candidates import spmm_candidates
from keras_trim.inference.lowering.spmv import FEW_ROWS, emit_spmv
from keras_trim.inference.program.tensors import Place, Tensor, channels_of, view_of

_WIDE = 2  # times as many inputs as outputs
_MOST_TURNS = 4  # of a ring; threads wait for each other after each turn


def emit_spmm(
    builder, columns, bias, x, y, pixels, row, size, clip=Clip(), residual=None  # noqa: B008
):  # fmt: skip
    """Emits the fastest candidate for `y = clip(weights * x + bias + residual)`.

    Args:
        builder: `Builder`.
        columns: `packing.SparseColumns`, the weights.
        bias: Array, (output channels,).
        x: `Tensor`, padded if the offsets of `columns` need it.
        y: `Tensor`, NCHW.
        pixels: Integer. Sums per channel, counted in rows of `row`.
        row: Integer. Pixels per row of x, or 0 if rows of x and y are equally long.
        size: (width, height) of the output.
        clip: `Clip`.
        residual: `Tensor` or None. NCHW, of the shape of y.
    """
    mode_of_rows = DIRECT if row == 0 else LINES if size[0] % LANES == 0 else GAPPED
    vectors = size[0] // LANES if mode_of_rows == LINES else -(-pixels // LANES)

    def emit(tiling, builder):
        groups = row_groups(columns, tiling.tile)
        blocks, widest = tiling.blocks, min(tiling.vectors, vectors)
        mode, most = mode_of_rows, -(-vectors // -(-vectors // widest))
        number = np.arange(len(columns.offsets))
        copies = -(-len(number) // blocks)
        offsets, length = columns.offsets, 0  # of a copy, in floats
        if tiling.is_packed:
            length = widest * LANES
            offsets = number % copies * length
        packed = columns.pack(groups, blocks, number // copies, offsets)
        rows = len(bias) if blocks > 1 else CHUNK * int(groups[:, 1].max())
        if mode < GAPPED and groups[0, 1] == 1 and not tiling.is_packed:
            most = WIDEST  # used when threads split the pixels
        has_sums = mode >= GAPPED or blocks > 1
        needed = copies * length + (rows * most * LANES if has_sums else 0)
        scratch, scratch_size = builder.scratch(needed) if needed else (0, 0)
        flags = clip.flag | (RESIDUAL if residual is not None else 0)
        optional = {}
        if residual is not None:
            optional |= {"residual": residual, "residual_sample": residual.sample_size}
        if HAS_EXPAND and mode == GAPPED:
            firsts, masks = row_tables(size[1], size[0], 0, 0, size[1], row)
            optional |= {"starts": builder.index(firsts), "masks": builder.short_index(masks)}
        if columns.masks is not None:
            taps, per_tap = columns.masks.shape
            inside = builder.short_index(columns.masks)
            optional |= {"inside": inside, "taps": taps, "per_tap": per_tap}
        weights = {
            "runs": builder.index(packed.runs),
            "num_runs": len(packed.runs),
            "table": builder.index(packed.table),
            "num_groups": len(groups),
            "offsets": builder.index(packed.offsets),
            "values": builder.constant(packed.values),
            "bias": builder.constant(np.append(bias, np.zeros(8))),
        }
        if length:
            optional |= {
                "copies": builder.index(columns.offsets),
                "num_copies": len(columns.offsets),
                "packed": copies,
                "length": length,
            }
        builder.emit(
            SPMM, x=x, x_sample=x.sample_size, y=y, y_sample=y.sample_size, batch=y.batch,
            plane=y.plane, pixels=pixels, row=row or size[0], width=size[0], height=size[1],
            **weights, blocks=blocks, scratch=scratch, scratch_size=scratch_size, flags=flags,
            vectors=widest, mode=mode, **optional, low=clip.low, high=clip.high,
        )  # fmt: skip

    workload = (
        "spmm", columns.num_rows, len(columns.offsets), columns.row_sets,
        round(20 * columns.density), pixels, row, y.batch, residual is not None,
        columns.masks is not None,
    )  # fmt: skip
    best, _ = select(builder, spmm_candidates(columns, vectors), emit, workload, x)
    builder.label(f"{best}, masked" if columns.masks is not None else str(best))


def emit_pointwise(builder, kernel, bias, x, y, clip=Clip(), residual=None):  # noqa: B008
    """Emits `y = clip(x @ kernel + bias + residual)` for each pixel of planes.

    Pixels left over after whole vectors can be the rows of a separate product: 49 pixels are three
    vectors and one pixel, which would take as long as a vector. So can the few pixels after global
    pooling.

    With several threads and more inputs than outputs, sums can go from thread to thread in place of
    activations: a ring.

    Args:
        builder: `Builder`.
        kernel: Array, (inputs, outputs).
        bias: Array, (outputs,).
        x, y: `Tensor`s, NCHW.
        clip: `Clip`.
        residual: `Tensor` or None. NCHW, of the shape of y.
    """
    columns = SparseColumns.of_matrix(kernel, x.plane, builder.skip_zeros)
    pixels, left = x.pixels, x.pixels % LANES
    can_split = residual is None and 0 < x.batch * left <= FEW_ROWS
    inputs, outputs = kernel.shape
    can_pass_on = (
        residual is None
        and x.batch == 1
        and 1 < builder.num_threads <= min(outputs, _MOST_TURNS)
        and inputs >= _WIDE * outputs
    )

    def emit(candidate, builder):
        if candidate == "ring":
            _emit_ring(builder, kernel, bias, x, y, clip)
            return
        split = pixels - left if candidate == "split" else pixels
        if split:
            emit_spmm(builder, columns, bias, x, y, split, 0, (split, 1), clip, residual)
        if candidate == "split":
            _emit_last_pixels(builder, kernel, bias, x, y, split, clip)

    candidates = ["whole"] + ["split"] * can_split + ["ring"] * can_pass_on
    workload = "pointwise", kernel.shape, round(20 * columns.density), x.batch, pixels
    select(builder, candidates, emit, workload, x)


def _emit_ring(builder, kernel, bias, x, y, clip):
    """Emits the product for one image. Each thread reads only the channels that it made itself.

    The rows of weights are split into one part per thread. A thread adds the products of its
    channels to the sums of one part, then the next thread adds its own, until all have: a ring
    reduction. Only sums go from core to core, and they are fewer than the channels of x.
    """
    threads, (inputs, outputs) = builder.num_threads, kernel.shape
    sums = [None] * threads  # of each part
    for turn in range(threads):
        is_last, bands = turn == threads - 1, []
        for thread in range(threads):
            part = (thread + turn + 1) % threads  # in the last turn, `thread` itself
            first, last = share(inputs, thread, threads)
            begin, end = share(outputs, part, threads)
            columns = SparseColumns.of_matrix(
                kernel[first:last, begin:end], x.plane, builder.skip_zeros
            )
            residual = view_of(sums[part]) if turn else None
            if not is_last:
                sums[part] = Tensor((*y.shape[:-1], end - begin), "NCHW")
            alone = builder.alone(builder.tuner)
            alone.node = builder.node
            emit_spmm(
                alone, columns, np.zeros(end - begin, np.float32) if turn else bias[begin:end],
                channels_of(x, first, last),
                channels_of(y, begin, end) if is_last else view_of(sums[part]),
                x.pixels, 0, (x.pixels, 1), clip if is_last else Clip(), residual,
            )  # fmt: skip
            bands.append(alone)
        builder.emit_tasks(bands)
    for choice in bands[0].labels[builder.node]:
        builder.label(f"{choice}; each thread its channels")


def _emit_last_pixels(builder, kernel, bias, x, y, first, clip):
    """Emits the product for the pixels from `first` on, as rows."""
    (inputs, outputs), left = kernel.shape, x.pixels - first
    rows = Tensor((x.batch, left, inputs), "NHWC")
    sums = Tensor((x.batch, left, outputs), "NHWC")
    builder.emit(
        TRANSPOSE, x=Place(x, first), y=rows, batch=x.batch, x_sample=x.sample_size,
        y_sample=rows.sample_size, rows=inputs, columns=left, x_row=x.plane, y_row=inputs,
    )  # fmt: skip
    emit_spmv(builder, kernel, bias, rows, sums, x.batch * left, clip)
    builder.emit(
        TRANSPOSE, x=sums, y=Place(y, first), batch=x.batch, x_sample=sums.sample_size,
        y_sample=y.sample_size, rows=left, columns=outputs, x_row=outputs, y_row=y.plane,
    )  # fmt: skip
