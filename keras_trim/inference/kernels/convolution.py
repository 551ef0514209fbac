"""Products of weights with planes of activations: convolutions, and dense layers on many rows.

Every weight of a convolution multiplies a shifted copy of one input plane. Laid out flat, a shift
is an offset into the buffer, so a k x k convolution is a sparse matrix product whose "columns" are
offsets.

The reduction is split into blocks of columns whose activations fit the first-level cache. Without
it the product runs at the speed of the second level, about half as fast. What a block reads may be
copied to one place first. If its vectors are of lines below each other, taps below each other share
most of their copy, and blocks hold more columns.

Copies may leave out what lies outside of the image (`edges.py`). Otherwise the input needs its
padding written out (`padding.py`), and the few sums between two rows of the output are computed for
nothing.
"""

from numba import njit

from keras_trim.inference.kernels.copies import copy_floats, pack
from keras_trim.inference.kernels.edges import pack_inside
from keras_trim.inference.kernels.gaps import IS_AVAILABLE as HAS_TABLES
from keras_trim.inference.kernels.gaps import close_rows, store_lines
from keras_trim.inference.kernels.register_tile import WIDEST, multiply_add
from keras_trim.inference.kernels.threads import share, take
from keras_trim.inference.kernels.vector import CLIP, FIRST, LANES, RESIDUAL

(
    _1x1, _1x2, _1x3, _1x4, _1x5, _1x6, _1x7, _1x8,
) = (multiply_add(1, vectors) for vectors in range(1, 9))  # fmt: skip
_2x1, _2x2, _2x3, _2x4 = (multiply_add(2, vectors) for vectors in range(1, 5))
_4x1, _4x2, _4x3, _4x4 = (multiply_add(4, vectors) for vectors in range(1, 5))
_6x1, _6x2, _6x3, _6x4 = (multiply_add(6, vectors) for vectors in range(1, 5))


_pack, _pack_inside, _store_lines = pack(), pack_inside(), store_lines()
_close_rows = close_rows() if HAS_TABLES else None


@njit(nogil=True, boundscheck=False)
def _groups(
    rows, vectors, x, offsets, values, table, groups, sums, sums_stride, y, stride, bias, residual,
    flags, low, high,
):  # fmt: skip
    """Calls the kernel for groups of `rows` rows and `vectors` vectors of activations."""
    a = (
        x, offsets, values, table, groups, sums, sums_stride, y, stride, bias, residual, flags, low,
        high,
    )  # fmt: skip
    if rows == 1:
        if vectors == 8:
            _1x8(*a)
        elif vectors == 7:
            _1x7(*a)
        elif vectors == 6:
            _1x6(*a)
        elif vectors == 5:
            _1x5(*a)
        elif vectors == 4:
            _1x4(*a)
        elif vectors == 3:
            _1x3(*a)
        elif vectors == 2:
            _1x2(*a)
        else:
            _1x1(*a)
    elif rows == 6:
        if vectors == 4:
            _6x4(*a)
        elif vectors == 3:
            _6x3(*a)
        elif vectors == 2:
            _6x2(*a)
        else:
            _6x1(*a)
    elif rows == 4:
        if vectors == 4:
            _4x4(*a)
        elif vectors == 3:
            _4x3(*a)
        elif vectors == 2:
            _4x2(*a)
        else:
            _4x1(*a)
    else:
        if vectors == 4:
            _2x4(*a)
        elif vectors == 3:
            _2x3(*a)
        elif vectors == 2:
            _2x2(*a)
        else:
            _2x1(*a)


@njit(nogil=True, boundscheck=False)
def _store_rows(arena, sums, start, count, y, other, row, width, height, flags, low, high):
    """Copies sums, laid out in rows of `row`, to the `width` pixels that each row of y has.

    `start` is where the first of `count` sums stands in the output, counted in rows of `row`.
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


# The operands of an instruction, by their column in the program.
(
    X, X_SAMPLE, Y, Y_SAMPLE, BATCH, PLANE, PIXELS, ROW, WIDTH, HEIGHT, RUNS, NUM_RUNS, TABLE,
    NUM_GROUPS, BLOCKS, OFFSETS, VALUES, BIAS, OTHER, OTHER_SAMPLE, SCRATCH, SCRATCH_SIZE, FLAGS,
    VECTORS, WAY, COPIES, NUM_COPIES, PACKED, LENGTH, STARTS, MASKS, INSIDE, TAPS, PER_TAP,
) = range(1, 35)  # fmt: skip
# How vectors of pixels lie. One behind the other, in x as in y; the same for each line, a whole
# number of them; one behind the other in x, where lines are longer than in y; or those that are
# worked on at once below each other, each of another line.
DIRECT, LINES, GAPPED, STACKED = range(4)
_WIDE = 3  # times as many inputs as outputs
CHUNK = 16  # groups of rows whose sums wait in scratch memory to be stored


@njit(nogil=True, boundscheck=False)
def convolution(
    p, f, arena, constants, index, short_index, control, thread, num_threads
):  # fmt: skip
    """y = clip(weights * x + bias + residual), see `operations/convolution.py` for its operands.

    Work is split into pieces of pixels and, where these are too few for the threads, into groups of
    rows. With `LINES` a piece is part of one line of the output, with `STACKED` of some lines, a
    vector each.
    """
    way, lines, most = p[WAY], 1, p[VECTORS]
    vectors = (p[WIDTH] if way in (LINES, STACKED) else p[PIXELS]) // -LANES * -1
    if way == LINES:
        lines = p[HEIGHT]
    elif way == STACKED:
        lines, most = (p[HEIGHT] + most - 1) // most, 1
    parts = (vectors + most - 1) // most
    pieces = lines * parts
    all_pieces = p[BATCH] * pieces
    # Threads have rows of their own if there are few pieces: half of the weights fit more caches
    # than all of them. But then each needs all of x, much of which is in the cache of another
    # core; if x is far larger than y they have pixels of their own. What is packed, each of them
    # would have to pack.
    is_direct = way < GAPPED
    is_wide = all_pieces >= num_threads and p[X_SAMPLE] >= _WIDE * p[Y_SAMPLE]
    is_split = all_pieces < (num_threads if p[PACKED] or is_wide else 8 * num_threads)
    if not is_split and way != STACKED and all_pieces < 8 * num_threads:
        # As many pieces for each thread.
        widest = WIDEST if is_direct and index[p[RUNS] + 2] == 1 and not p[PACKED] else most
        parts = (vectors + widest - 1) // widest
        parts = min((parts + num_threads - 1) // num_threads * num_threads, vectors)
        pieces = lines * parts
        all_pieces = p[BATCH] * pieces
    splits = num_threads if is_split else 1
    chunk = p[NUM_GROUPS] if is_direct or p[BLOCKS] > 1 else CHUNK
    item, end = take(control, all_pieces * splits, 1, thread, num_threads)
    while item < end:
        split = item // all_pieces
        piece = item % pieces
        sample = item % all_pieces // pieces
        line, part = piece // parts, piece % parts
        first, last = share(vectors, part, parts)
        column, count = first * LANES, last - first
        if way == STACKED:
            line, last_line = share(p[HEIGHT], line, lines)
            count = last_line - line
        first_group, last_group = share(p[NUM_GROUPS], split, splits)
        # A thread that has some rows of y often made as many channels of x: begun with these, it
        # need not wait right away for what lies in the cache of another core.
        first_block = p[BLOCKS] * split // splits
        while first_group < last_group:
            chunk_end = min(first_group + chunk, last_group)
            _piece(
                p, f, arena, constants, index, short_index, thread, num_threads > 1, sample, line,
                column, count, first_group, chunk_end, first_block,
            )  # fmt: skip
            first_group = chunk_end
        item, end = take(control, all_pieces * splits, 1, thread, num_threads)


@njit(nogil=True, boundscheck=False)
def _piece(
    p, f, arena, constants, index, short_index, thread, is_shared, sample, line, column, vectors,
    first_group, last_group, first_block,
):  # fmt: skip
    """Computes some groups of rows for some vectors of pixels, from a pixel of a line on.

    If the work is shared among threads, sums wait for their last block in memory of the thread: of
    lines next to those that it writes to, another core's prefetcher would take them away.
    """
    base, blocks, way, low, high = arena.ctypes.data, p[BLOCKS], p[WAY], f[0], f[1]
    is_direct = way < GAPPED
    pixels = base + 4 * (p[X] + sample * p[X_SAMPLE] + line * p[ROW] + column)
    y_pixel = line * p[WIDTH] + column
    packed = p[SCRATCH] + thread * p[SCRATCH_SIZE]
    scratch = packed + p[PACKED] * p[LENGTH]
    first_row = -1
    for turn in range(blocks):
        block = (first_block + turn) % blocks
        x = pixels
        if p[PACKED]:
            # One copy after the other, on cache lines, of the few pixels at hand.
            x = base + 4 * packed
            first = block * p[PACKED]
            starts = index.ctypes.data + 4 * (p[COPIES] + first)
            count, size = min(p[PACKED], p[NUM_COPIES] - first), 4 * p[LENGTH]
            lines, apart, parts = vectors, 4 * LANES, 1
            if way == STACKED:
                lines, apart = vectors + p[LENGTH] // LANES - p[VECTORS], 4 * p[ROW]
                parts = (p[WIDTH] + LANES - 1) // LANES
            if p[TAPS]:
                masks = p[INSIDE] + line * parts + column // LANES
                _pack_inside(
                    x, pixels, starts, count, size, lines, apart,
                    short_index.ctypes.data + 2 * masks, p[TAPS], p[PER_TAP], parts,
                    first % p[TAPS],
                )  # fmt: skip
            else:
                _pack(x, pixels, starts, count, size, lines, apart)
        flags = FIRST if turn == 0 else 0
        if turn == blocks - 1:
            # Where rows are taken apart, the residual is added, and then the sum clipped, there.
            flags |= p[FLAGS] if is_direct or not p[FLAGS] & RESIDUAL else 0
        for run in range(p[NUM_RUNS]):
            at = p[RUNS] + 4 * run
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
                y, stride = p[Y] + sample * p[Y_SAMPLE] + channel * p[PLANE] + y_pixel, p[PLANE]
            if is_direct and not is_shared:
                sums, apart = y if turn else 0, stride
            other = p[OTHER] + sample * p[OTHER_SAMPLE] + channel * p[PLANE] + y_pixel
            table = p[TABLE] + 3 * (block * p[NUM_GROUPS] + group)
            _groups(
                rows, vectors, x, index.ctypes.data + 4 * (p[OFFSETS] + index[table]),
                constants.ctypes.data + 4 * (p[VALUES] + index[table + 2]),
                index.ctypes.data + 4 * table, end - group, base + 4 * sums, 4 * apart,
                base + 4 * y, 4 * stride, constants.ctypes.data + 4 * (p[BIAS] + channel),
                base + 4 * other, flags, low, high,
            )  # fmt: skip
            last_row = channel + (end - group) * rows
    if not is_direct:
        for channel in range(first_row, last_row):
            sums = scratch + (channel - first_row) * vectors * LANES
            y = p[Y] + sample * p[Y_SAMPLE] + channel * p[PLANE]
            other = p[OTHER] + sample * p[OTHER_SAMPLE] + channel * p[PLANE]
            if way == STACKED:
                _store_lines(
                    base + 4 * (y + y_pixel), base + 4 * sums, base + 4 * (other + y_pixel),
                    4 * p[WIDTH], vectors, p[WIDTH] - column, p[FLAGS], low, high,
                )  # fmt: skip
            elif HAS_TABLES:
                first = y_pixel // LANES
                _close_rows(
                    base + 4 * y, base + 4 * sums, base + 4 * other,
                    index.ctypes.data + 4 * (p[STARTS] + first),
                    short_index.ctypes.data + 2 * (p[MASKS] + first), vectors, p[FLAGS], low, high,
                )  # fmt: skip
            else:
                _store_rows(
                    arena, sums, y_pixel, vectors * LANES, y, other, p[ROW], p[WIDTH], p[HEIGHT],
                    p[FLAGS], low, high,
                )  # fmt: skip
