"""Products of weights with planes of activations: convolutions, and dense layers on many rows.

Every weight of a convolution multiplies a shifted copy of one input plane. Laid out flat, a shift is
an offset into the buffer, so a k x k convolution is a sparse matrix product whose "columns" are
offsets. It needs an input with its padding written out (`padding.py`) and computes the few sums
between two rows of the output for nothing.

The reduction is split into blocks of columns whose activations fit the first-level cache. Without it
the product runs at the speed of the second level, about half as fast.
"""

from numba import njit

from keras_trim.inference.kernels.threads import share
from keras_trim.inference.kernels.vector import (
    CLIP,
    FIRST,
    LANES,
    RESIDUAL,
    copy_floats,
    multiply_add,
)

(
    _1x1, _1x2, _1x3, _1x4, _1x5, _1x6, _1x7, _1x8,
) = (multiply_add(1, vectors) for vectors in range(1, 9))  # fmt: skip
_2x1, _2x2, _2x3, _2x4 = (multiply_add(2, vectors) for vectors in range(1, 5))
_4x1, _4x2, _4x3, _4x4 = (multiply_add(4, vectors) for vectors in range(1, 5))
_6x1, _6x2, _6x3, _6x4 = (multiply_add(6, vectors) for vectors in range(1, 5))


@njit(nogil=True, boundscheck=False)
def _one_row(vectors, x, offsets, values, count, y, bias, residual, flags, low, high):
    """Calls the kernel for one row of weights and up to 8 vectors of activations."""
    a = (x, offsets, values, count, y, 0, bias, residual, flags, low, high)
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


@njit(nogil=True, boundscheck=False)
def _group(rows, vectors, x, offsets, values, count, y, stride, bias, residual, flags, low, high):
    """Calls the kernel for a group of rows that share their columns."""
    a = (x, offsets, values, count, y, stride, bias, residual, flags, low, high)
    if rows == 1:
        _one_row(vectors, x, offsets, values, count, y, bias, residual, flags, low, high)
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
    elif vectors == 4:
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


# The columns of an instruction.
(
    X, X_SAMPLE, Y, Y_SAMPLE, BATCH, PLANE, PIXELS, ROW, WIDTH, HEIGHT, GROUPS, NUM_GROUPS,
    BLOCKS, OFFSETS, VALUES, BIAS, OTHER, OTHER_SAMPLE, SCRATCH, SCRATCH_SIZE, FLAGS, VECTORS,
    NUM_ROWS,
) = range(1, 24)  # fmt: skip


@njit(nogil=True, boundscheck=False)
def convolution(p, f, arena, constants, index, thread, num_threads):
    """y = clip(weights * x + bias + residual), see `operations/convolution.py` for its operands."""
    pixels, row, blocks, num_groups = p[PIXELS], p[ROW], p[BLOCKS], p[NUM_GROUPS]
    vectors = (pixels + LANES - 1) // LANES
    pieces = (vectors + p[VECTORS] - 1) // p[VECTORS]
    splits = 1 if p[BATCH] * pieces >= 4 * num_threads else num_threads
    begin, end = share(p[BATCH] * pieces * splits, thread, num_threads)
    low, high = f[0], f[1]
    x0, y0 = arena.ctypes.data, arena.ctypes.data
    offsets, values, biases = index.ctypes.data, constants.ctypes.data, constants.ctypes.data
    scratch = p[SCRATCH] + thread * p[SCRATCH_SIZE]
    for item in range(begin, end):
        split = item % splits
        piece = (item // splits) % pieces
        sample = item // (splits * pieces)
        first, last = share(vectors, piece, pieces)
        width = last - first
        pixel = first * LANES
        x = x0 + 4 * (p[X] + sample * p[X_SAMPLE] + pixel)
        first_group, last_group = share(num_groups, split, splits)
        for block in range(blocks):
            is_last = block == blocks - 1
            flags = FIRST if block == 0 else 0
            if is_last and row == 0:
                flags |= p[FLAGS]
            elif is_last and not p[FLAGS] & RESIDUAL:
                flags |= p[FLAGS] & CLIP
            for group in range(first_group, last_group):
                table = p[GROUPS] + 2 * group
                channel, rows = index[table], index[table + 1]
                table = p[GROUPS] + 2 * num_groups + 3 * (block * num_groups + group)
                column, count, value = index[table], index[table + 1], index[table + 2]
                if row == 0:
                    y = y0 + 4 * (p[Y] + sample * p[Y_SAMPLE] + channel * p[PLANE] + pixel)
                    other = (
                        y0 + 4 * (p[OTHER] + sample * p[OTHER_SAMPLE] + channel * p[PLANE] + pixel)
                    )
                    stride = 4 * p[PLANE]
                else:
                    at = scratch + (channel * width * LANES if blocks > 1 else 0)
                    y, other, stride = y0 + 4 * at, 0, 4 * width * LANES
                _group(
                    rows, width, x, offsets + 4 * (p[OFFSETS] + column),
                    values + 4 * (p[VALUES] + value), count, y, stride,
                    biases + 4 * (p[BIAS] + channel), other, flags, low, high,
                )  # fmt: skip
                if row and is_last:
                    for r in range(rows):
                        plane = (channel + r) * p[PLANE]
                        _store_rows(
                            arena, at + r * width * LANES, pixel, width * LANES,
                            p[Y] + sample * p[Y_SAMPLE] + plane,
                            p[OTHER] + sample * p[OTHER_SAMPLE] + plane,
                            row, p[WIDTH], p[HEIGHT], p[FLAGS], low, high,
                        )  # fmt: skip
