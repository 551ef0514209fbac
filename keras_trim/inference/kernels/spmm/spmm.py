"""Products of weights with planes of activations: convolutions, and dense layers on many rows.

Every weight of a convolution multiplies a shifted copy of one input plane. In a flat buffer a shift
is an offset, so a k x k convolution is a sparse matrix product whose "columns" are offsets.

The reduction is split into blocks of columns whose activations fit the first-level cache. Otherwise
the product runs at the speed of the second level, about half as fast. The activations of a block
may be packed into one place first.

Packing can mask out pixels outside of the image (`lane_masks.py`). Otherwise the input must be
padded in memory (`layout/padding.py`), and the few sums between two rows of the output are wasted.
"""

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.instructions import SPMM, executes
from keras_trim.inference.kernels.lane_masks import pack_inside
from keras_trim.inference.kernels.layout.copies import copy_floats, pack
from keras_trim.inference.kernels.layout.expand_compress import IS_AVAILABLE as HAS_EXPAND
from keras_trim.inference.kernels.layout.expand_compress import compress_rows
from keras_trim.inference.kernels.llvm import CLIP, FIRST, LANES, RESIDUAL
from keras_trim.inference.kernels.spmm.micro_kernel import ROW_GROUPS, WIDEST, spmm_micro_kernel
from keras_trim.inference.kernels.switch import switch
from keras_trim.inference.kernels.work_sharing import share, take

AT = SPMM.at

_ROWS, _VECTORS = (1, *ROW_GROUPS), 16  # rows of a tile; more vectors than any tile has
_micro_kernel = switch(
    "x, offsets, values, table, groups, sums, sums_stride, y, stride, bias, residual, flags, low, "
    "high",
    {
        _VECTORS * rows + vectors: spmm_micro_kernel(rows, vectors)
        for rows in _ROWS
        for vectors in range(1, 1 + (WIDEST if rows == 1 else 4))
    },
)  # `_micro_kernel(_VECTORS * rows + vectors, ...)` runs the micro-kernel of a tile
_pack, _pack_inside = pack(), pack_inside()
_compress_rows = compress_rows() if HAS_EXPAND else None


@inner
def _store_rows(arena, sums, start, count, y, other, row, width, height, flags, low, high):
    """Copies sums, laid out in rows of `row`, to y, whose rows have `width` pixels.

    `start` is the place of the first of `count` sums in the output, counted in rows of `row`. A
    residual is added, and only then is the sum clipped.
    """
    base = arena.ctypes.data
    line = start // row
    column = start - line * row
    done = 0
    while done < count and line < height:
        length = min(row - column, count - done)
        kept = min(length, width - column)
        if kept > 0:
            pixel = line * width + column
            if flags & RESIDUAL:
                for i in range(kept):
                    v = arena[sums + done + i] + arena[other + pixel + i]
                    if flags & CLIP:
                        v = low if v < low else v
                        v = high if v > high else v
                    arena[y + pixel + i] = v
            else:
                copy_floats(base + 4 * (y + pixel), base + 4 * (sums + done), kept)
        done += length
        column = 0
        line += 1


# How vectors of pixels lie. DIRECT: contiguous in x and y. LINES: each line is a whole number of
# vectors. GAPPED: contiguous in x, whose lines are longer than those of y.
DIRECT, LINES, GAPPED = range(3)
_WIDE = 3  # times as many inputs as outputs
CHUNK = 16  # groups of rows whose sums are in scratch memory at a time


@executes(SPMM)
@inner
def spmm(
    p, f, arena, constants, index, short_index, control, thread, num_threads
):  # fmt: skip
    """y = clip(weights * x + bias + residual); see `lowering/spmm.py` for its operands.

    Splits the work into pieces of pixels and, if these are too few for the threads, into groups of
    rows. With mode `LINES` a piece is part of one line of the output.
    """
    way, lines, most = p[AT.mode], 1, p[AT.vectors]
    vectors = (p[AT.width] if way == LINES else p[AT.pixels]) // -LANES * -1
    if way == LINES:
        lines = p[AT.height]
    parts = (vectors + most - 1) // most
    pieces = lines * parts
    all_pieces = p[AT.batch] * pieces
    # If there are few pieces, threads split the rows: part of the weights fits a cache more often
    # than all of them. But then each thread reads all of x, much of it from another core's cache,
    # and has to pack all of it. So if x is packed or far larger than y, threads split the pixels
    # as long as there are enough pieces.
    is_direct = way < GAPPED
    is_wide = all_pieces >= num_threads and p[AT.x_sample] >= _WIDE * p[AT.y_sample]
    is_split = all_pieces < (num_threads if p[AT.packed] or is_wide else 8 * num_threads)
    if not is_split and all_pieces < 8 * num_threads:
        # The same number of pieces for each thread.
        widest = WIDEST if is_direct and index[p[AT.runs] + 2] == 1 and not p[AT.packed] else most
        parts = (vectors + widest - 1) // widest
        parts = min((parts + num_threads - 1) // num_threads * num_threads, vectors)
        pieces = lines * parts
        all_pieces = p[AT.batch] * pieces
    splits = num_threads if is_split else 1
    chunk = p[AT.num_groups] if is_direct or p[AT.blocks] > 1 else CHUNK
    item, end = take(control, all_pieces * splits, 1, thread, num_threads)
    while item < end:
        split = item // all_pieces
        piece = item % pieces
        sample = item % all_pieces // pieces
        line, part = piece // parts, piece % parts
        first, last = share(vectors, part, parts)
        column, count = first * LANES, last - first
        first_group, last_group = share(p[AT.num_groups], split, splits)
        # A thread that computes some rows of y often made the same share of x's channels. Starting
        # with these, it does not have to wait for another core's cache right away.
        first_block = p[AT.blocks] * split // splits
        while first_group < last_group:
            chunk_end = min(first_group + chunk, last_group)
            _piece(
                p, f, arena, constants, index, short_index, thread, num_threads > 1, sample, line,
                column, count, first_group, chunk_end, first_block,
            )  # fmt: skip
            first_group = chunk_end
        item, end = take(control, all_pieces * splits, 1, thread, num_threads)


@inner
def _piece(
    p, f, arena, constants, index, short_index, thread, is_shared, sample, line, column, vectors,
    first_group, last_group, first_block,
):  # fmt: skip
    """Computes some groups of rows for some vectors of pixels, starting at a pixel of a line.

    If threads share the work, partial sums stay in the thread's own memory until the last block. In
    y, the prefetcher of a core that writes nearby would keep taking their cache lines.
    """
    base, blocks, way, low, high = (
        arena.ctypes.data,
        p[AT.blocks],
        p[AT.mode],
        f[AT.low],
        f[AT.high],
    )
    is_direct = way < GAPPED
    pixels = base + 4 * (p[AT.x] + sample * p[AT.x_sample] + line * p[AT.row] + column)
    y_pixel = line * p[AT.width] + column
    packed = p[AT.scratch] + thread * p[AT.scratch_size]
    scratch = packed + p[AT.packed] * p[AT.length]
    first_row = -1
    for turn in range(blocks):
        block = (first_block + turn) % blocks
        x = pixels
        if p[AT.packed]:
            # Pack these pixels of all columns of the block, one after another, on cache lines.
            x = base + 4 * packed
            first = block * p[AT.packed]
            starts = index.ctypes.data + 4 * (p[AT.copies] + first)
            count, size = min(p[AT.packed], p[AT.num_copies] - first), 4 * p[AT.length]
            if p[AT.taps]:
                masks = p[AT.inside] + column // LANES
                _pack_inside(
                    x, pixels, starts, count, size, vectors, short_index.ctypes.data + 2 * masks,
                    p[AT.taps], p[AT.per_tap], first % p[AT.taps],
                )  # fmt: skip
            else:
                _pack(x, pixels, starts, count, size, vectors)
        flags = FIRST if turn == 0 else 0
        if turn == blocks - 1:
            # With mode GAPPED, the copy of the sums to y adds a residual, and clips after that.
            flags |= p[AT.flags] if is_direct or not p[AT.flags] & RESIDUAL else 0
        for run in range(p[AT.num_runs]):
            at = p[AT.runs] + 4 * run
            rows = index[at + 2]
            group = max(index[at], first_group)
            end = min(index[at] + index[at + 1], last_group)
            if group >= end:
                continue
            channel = index[at + 3] + (group - index[at]) * rows
            first_row = channel if first_row < 0 else first_row
            sums, apart = scratch + (channel - first_row) * vectors * LANES, vectors * LANES
            y, stride = sums, apart
            if is_direct and (turn == blocks - 1 or not is_shared):
                y, stride = (
                    p[AT.y] + sample * p[AT.y_sample] + channel * p[AT.plane] + y_pixel,
                    p[AT.plane],
                )
            if is_direct and not is_shared:
                sums, apart = y if turn else 0, stride
            other = (
                p[AT.residual] + sample * p[AT.residual_sample] + channel * p[AT.plane] + y_pixel
            )
            table = p[AT.table] + 3 * (block * p[AT.num_groups] + group)
            _micro_kernel(
                _VECTORS * rows + vectors, x,
                index.ctypes.data + 4 * (p[AT.offsets] + index[table]),
                constants.ctypes.data + 4 * (p[AT.values] + index[table + 2]),
                index.ctypes.data + 4 * table, end - group, base + 4 * sums, 4 * apart,
                base + 4 * y, 4 * stride, constants.ctypes.data + 4 * (p[AT.bias] + channel),
                base + 4 * other, flags, low, high,
            )  # fmt: skip
            last_row = channel + (end - group) * rows
    if not is_direct:
        for channel in range(first_row, last_row):
            sums = scratch + (channel - first_row) * vectors * LANES
            y = p[AT.y] + sample * p[AT.y_sample] + channel * p[AT.plane]
            other = p[AT.residual] + sample * p[AT.residual_sample] + channel * p[AT.plane]
            if HAS_EXPAND:
                first = y_pixel // LANES
                _compress_rows(
                    base + 4 * y, base + 4 * sums, base + 4 * other,
                    index.ctypes.data + 4 * (p[AT.starts] + first),
                    short_index.ctypes.data + 2 * (p[AT.masks] + first), vectors, p[AT.flags], low,
                    high,
                )  # fmt: skip
            else:
                _store_rows(
                    arena, sums, y_pixel, vectors * LANES, y, other, p[AT.row], p[AT.width],
                    p[AT.height],
                    p[AT.flags], low, high,
                )  # fmt: skip
