"""Data movement: between rows and planes, and of parts of tensors."""

import numpy as np

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.instructions import COPY, GATHER, TAKE_INPUT, TRANSPOSE, executes
from keras_trim.inference.kernels.layout.copies import (
    copy_checked,
    copy_floats,
    split_pixels,
    transpose_tile,
)
from keras_trim.inference.kernels.llvm import LANES, LINE
from keras_trim.inference.kernels.work_sharing import share

_TRANSPOSE, _COPY, _TAKE_INPUT, _GATHER = (
    instruction.at for instruction in (TRANSPOSE, COPY, TAKE_INPUT, GATHER)
)

_IMAGE_TILE = 8 * LANES

_transpose_tile, _split_image, _copy_checked = transpose_tile(), split_pixels(3, 1), copy_checked()


@executes(TRANSPOSE)
@inner
def transpose(p, arena, thread, num_threads):
    """y[n, j, i] = x[n, i, j] for `rows` i and `columns` j."""
    rows, columns = p[_TRANSPOSE.rows], p[_TRANSPOSE.columns]
    is_image = columns == 3 and p[_TRANSPOSE.x_row] == 3
    tile_rows = _IMAGE_TILE if is_image else LANES
    tiles = (rows + tile_rows - 1) // tile_rows
    begin, end = share(p[_TRANSPOSE.batch] * tiles, thread, num_threads)
    for item in range(begin, end):
        sample, tile = item // tiles, item % tiles
        first, last = tile * tile_rows, min((tile + 1) * tile_rows, rows)
        x, y = (
            p[_TRANSPOSE.x] + sample * p[_TRANSPOSE.x_sample],
            p[_TRANSPOSE.y] + sample * p[_TRANSPOSE.y_sample],
        )
        base = arena.ctypes.data
        if is_image:
            whole = (last - first) // LANES * LANES
            _split_image(
                base + 4 * (y + first), 0, 4 * p[_TRANSPOSE.y_row], base + 4 * (x + 3 * first),
                whole, 0,
                whole, np.float32(0),
            )  # fmt: skip
            first, whole = first + whole, 0
        else:
            whole = columns - columns % LANES if last - first == LANES else 0
        for j in range(0, whole, LANES):
            _transpose_tile(
                base + 4 * (y + j * p[_TRANSPOSE.y_row] + first),
                base + 4 * (x + first * p[_TRANSPOSE.x_row] + j),
                4 * p[_TRANSPOSE.y_row],
                4 * p[_TRANSPOSE.x_row],
            )
        for j in range(whole, columns):
            for i in range(first, last):
                arena[y + j * p[_TRANSPOSE.y_row] + i] = arena[x + i * p[_TRANSPOSE.x_row] + j]


@executes(COPY)
@inner
def copy(p, arena, thread, num_threads):
    """y[n, i, :] = x[n, i, :] for `rows` i of `columns` floats."""
    begin, end = share(p[_COPY.batch] * p[_COPY.rows], thread, num_threads)
    base, columns = arena.ctypes.data, p[_COPY.columns]
    for item in range(begin, end):
        sample, i = item // p[_COPY.rows], item % p[_COPY.rows]
        x = p[_COPY.x] + sample * p[_COPY.x_sample] + i * p[_COPY.x_row]
        y = p[_COPY.y] + sample * p[_COPY.y_sample] + i * p[_COPY.y_row]
        copy_floats(base + 4 * y, base + 4 * x, columns)


@executes(TAKE_INPUT)
@inner
def take_input(p, arena, thread, num_threads):
    """y = x, whose address is stored at `source`.

    `checks` has a cache line per thread. Its first float becomes NaN if the thread copied a value
    that is not finite, else zero.
    """
    source = arena[p[_TAKE_INPUT.source] : p[_TAKE_INPUT.source] + 2].view(np.int64)[0]
    first, last = share((p[_TAKE_INPUT.size] + LINE - 1) // LINE, thread, num_threads)
    first, last = first * LINE, min(last * LINE, p[_TAKE_INPUT.size])
    base = arena.ctypes.data
    _copy_checked(
        base + 4 * (p[_TAKE_INPUT.y] + first), source + 4 * first, last - first,
        base + 4 * (p[_TAKE_INPUT.checks] + LINE * thread),
    )  # fmt: skip


@executes(GATHER)
@inner
def gather(p, arena, constants, thread, num_threads):
    """y[i, :] = table[x[i], :] for int32 x; an index outside of the table gives NaN."""
    begin, end = share(p[_GATHER.size], thread, num_threads)
    where = arena.view(np.int32)
    for i in range(begin, end):
        row, y = where[p[_GATHER.x] + i], p[_GATHER.y] + i * p[_GATHER.width]
        if row < 0:
            row += p[_GATHER.length]
        if 0 <= row < p[_GATHER.length]:
            start = p[_GATHER.table] + row * p[_GATHER.width]
            arena[y : y + p[_GATHER.width]] = constants[start : start + p[_GATHER.width]]
        else:
            arena[y : y + p[_GATHER.width]] = np.nan
