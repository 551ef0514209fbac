"""Moves of data: between rows and planes, and of parts of tensors."""

import numpy as np
from numba import njit

from keras_trim.inference.kernels.copies import (
    copy_checked,
    copy_floats,
    split_pixels,
    transpose_tile,
)
from keras_trim.inference.kernels.threads import share
from keras_trim.inference.kernels.vector import LANES, LINE

X, Y, BATCH, X_SAMPLE, Y_SAMPLE, ROWS, COLUMNS, X_ROW, Y_ROW = range(1, 10)
_IMAGE_TILE = 8 * LANES

_transpose_tile, _split_image, _copy_checked = transpose_tile(), split_pixels(3, 1), copy_checked()


@njit(nogil=True, boundscheck=False)
def transpose(p, arena, thread, num_threads):
    """y[n, j, i] = x[n, i, j] for `ROWS` i and `COLUMNS` j."""
    rows, columns = p[ROWS], p[COLUMNS]
    is_image = columns == 3 and p[X_ROW] == 3
    tile_rows = _IMAGE_TILE if is_image else LANES
    tiles = (rows + tile_rows - 1) // tile_rows
    begin, end = share(p[BATCH] * tiles, thread, num_threads)
    for item in range(begin, end):
        sample, tile = item // tiles, item % tiles
        first, last = tile * tile_rows, min((tile + 1) * tile_rows, rows)
        x, y = p[X] + sample * p[X_SAMPLE], p[Y] + sample * p[Y_SAMPLE]
        base = arena.ctypes.data
        if is_image:
            whole = (last - first) // LANES * LANES
            _split_image(
                base + 4 * (y + first), 0, 4 * p[Y_ROW], base + 4 * (x + 3 * first), whole, 0,
                whole, np.float32(0),
            )  # fmt: skip
            first, whole = first + whole, 0
        else:
            whole = columns - columns % LANES if last - first == LANES else 0
        for j in range(0, whole, LANES):
            _transpose_tile(
                base + 4 * (y + j * p[Y_ROW] + first),
                base + 4 * (x + first * p[X_ROW] + j),
                4 * p[Y_ROW],
                4 * p[X_ROW],
            )
        for j in range(whole, columns):
            for i in range(first, last):
                arena[y + j * p[Y_ROW] + i] = arena[x + i * p[X_ROW] + j]


@njit(nogil=True, boundscheck=False)
def copy(p, arena, thread, num_threads):
    """y[n, i, :] = x[n, i, :] for `ROWS` i of `COLUMNS` floats."""
    begin, end = share(p[BATCH] * p[ROWS], thread, num_threads)
    base, columns = arena.ctypes.data, p[COLUMNS]
    for item in range(begin, end):
        sample, i = item // p[ROWS], item % p[ROWS]
        x = p[X] + sample * p[X_SAMPLE] + i * p[X_ROW]
        y = p[Y] + sample * p[Y_SAMPLE] + i * p[Y_ROW]
        copy_floats(base + 4 * y, base + 4 * x, columns)


SOURCE, TARGET, COUNT, CHECKS = range(1, 5)


@njit(nogil=True, boundscheck=False)
def take_input(p, arena, thread, num_threads):
    """y = x, whose address stands at `SOURCE`.

    `CHECKS` has a cache line for each thread, which begins with NaN if not all it took is finite,
    else with zero.
    """
    source = arena[p[SOURCE] : p[SOURCE] + 2].view(np.int64)[0]
    first, last = share((p[COUNT] + LINE - 1) // LINE, thread, num_threads)
    first, last = first * LINE, min(last * LINE, p[COUNT])
    base = arena.ctypes.data
    _copy_checked(
        base + 4 * (p[TARGET] + first), source + 4 * first, last - first,
        base + 4 * (p[CHECKS] + LINE * thread),
    )  # fmt: skip


TABLE, LENGTH, WIDTH, SIZE, OUT = range(1, 6)


@njit(nogil=True, boundscheck=False)
def gather(p, arena, constants, thread, num_threads):
    """y[i, :] = table[x[i], :], x being int32; an index outside of the table gives NaN."""
    begin, end = share(p[SIZE], thread, num_threads)
    where = arena.view(np.int32)
    for i in range(begin, end):
        row, y = where[p[6] + i], p[OUT] + i * p[WIDTH]
        if row < 0:
            row += p[LENGTH]
        if 0 <= row < p[LENGTH]:
            start = p[TABLE] + row * p[WIDTH]
            arena[y : y + p[WIDTH]] = constants[start : start + p[WIDTH]]
        else:
            arena[y : y + p[WIDTH]] = np.nan
