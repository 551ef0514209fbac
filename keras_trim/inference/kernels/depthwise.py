"""Depthwise convolution: each channel by itself, padded in a scratch buffer that stays in cache."""

from numba import njit

from keras_trim.inference.kernels.padding import pad_plane
from keras_trim.inference.kernels.threads import share
from keras_trim.inference.kernels.vector import (
    CLIP,
    FIRST,
    LANES,
    copy_floats,
    multiply_add,
    stencil,
)

(
    _3x3_1, _3x3_2, _3x3_3, _3x3_4, _3x3_5, _3x3_6, _3x3_7, _3x3_8,
) = (stencil(3, 3, 1, 1, lines) for lines in range(1, 9))  # fmt: skip
(
    _3x3s2_1, _3x3s2_2, _3x3s2_3, _3x3s2_4, _3x3s2_5, _3x3s2_6, _3x3s2_7, _3x3s2_8,
) = (stencil(3, 3, 2, 2, lines) for lines in range(1, 9))  # fmt: skip
_5x5_1, _5x5_2, _5x5_3, _5x5_4 = (stencil(5, 5, 1, 1, lines) for lines in range(1, 5))
_5x5s2_1, _5x5s2_2, _5x5s2_3, _5x5s2_4 = (stencil(5, 5, 2, 2, lines) for lines in range(1, 5))
_one_line = multiply_add(1, 1)

(
    X, X_SAMPLE, X_PLANE, Y, Y_SAMPLE, Y_PLANE, BATCH, CHANNELS, MULTIPLIER, HEIGHT, WIDTH,
    OUT_HEIGHT, OUT_WIDTH, TOP, LEFT, STRIDE_Y, STRIDE_X, ROWS, ROW, OFFSETS, TAPS, VALUES, BIAS,
    SCRATCH, SCRATCH_SIZE, PADDED_PLANE, FLAGS, PHASES_Y, PHASES_X, TOGETHER, KIND, MOST_LINES,
) = range(1, 33)  # fmt: skip


@njit(nogil=True, boundscheck=False)
def _lines(kind, lines, x, line, plane, offsets, one, values, y, y_line, bias, flags, low, high):
    """Computes one vector of pixels of each of some lines."""
    a = (x, line, plane, values, bias, y, y_line, flags, low, high)
    if kind == 0:
        for i in range(lines):
            _one_line(
                x + i * line, offsets, values, one, 1, y + i * y_line, 0, bias, 0, flags, low, high
            )
    elif kind == 1:
        if lines == 8:
            _3x3_8(*a)
        elif lines == 7:
            _3x3_7(*a)
        elif lines == 6:
            _3x3_6(*a)
        elif lines == 5:
            _3x3_5(*a)
        elif lines == 4:
            _3x3_4(*a)
        elif lines == 3:
            _3x3_3(*a)
        elif lines == 2:
            _3x3_2(*a)
        else:
            _3x3_1(*a)
    elif kind == 2:
        if lines == 8:
            _3x3s2_8(*a)
        elif lines == 7:
            _3x3s2_7(*a)
        elif lines == 6:
            _3x3s2_6(*a)
        elif lines == 5:
            _3x3s2_5(*a)
        elif lines == 4:
            _3x3s2_4(*a)
        elif lines == 3:
            _3x3s2_3(*a)
        elif lines == 2:
            _3x3s2_2(*a)
        else:
            _3x3s2_1(*a)
    elif kind == 3:
        if lines == 4:
            _5x5_4(*a)
        elif lines == 3:
            _5x5_3(*a)
        elif lines == 2:
            _5x5_2(*a)
        else:
            _5x5_1(*a)
    else:
        if lines == 4:
            _5x5s2_4(*a)
        elif lines == 3:
            _5x5s2_3(*a)
        elif lines == 2:
            _5x5s2_2(*a)
        else:
            _5x5s2_1(*a)


# (height, width, stride, stride) -> the kind of `_lines`, and how many lines it takes.
KINDS = {(3, 3, 1, 1): (1, 8), (3, 3, 2, 2): (2, 8), (5, 5, 1, 1): (3, 4), (5, 5, 2, 2): (4, 4)}
ANY_KIND = (0, 8)


@njit(nogil=True, boundscheck=False)
def depthwise(p, f, arena, constants, index, thread, num_threads):
    """y[c * multiplier + m] = clip(kernel[c, m] * x[c] + bias).

    Some channels are padded before they are computed: a load right behind a store of part of what it
    loads would wait for it.
    """
    begin, end = share(p[BATCH] * p[CHANNELS], thread, num_threads)
    phases = p[PHASES_Y] * p[PHASES_X] * p[PADDED_PLANE]
    scratch = p[SCRATCH] + thread * p[SCRATCH_SIZE]
    last_lines = scratch + p[TOGETHER] * phases
    while begin < end:
        count = min(p[TOGETHER], end - begin)
        for i in range(count):
            sample, channel = (begin + i) // p[CHANNELS], (begin + i) % p[CHANNELS]
            pad_plane(
                arena, p[X] + sample * p[X_SAMPLE] + channel * p[X_PLANE], p[HEIGHT], p[WIDTH],
                scratch + i * phases, p[PADDED_PLANE], p[ROWS], p[ROW], p[TOP], p[LEFT],
                p[STRIDE_Y], p[STRIDE_X], 1, 1, p[PHASES_Y], p[PHASES_X], 0.0,
            )  # fmt: skip
        for i in range(count):
            sample, channel = (begin + i) // p[CHANNELS], (begin + i) % p[CHANNELS]
            for m in range(p[MULTIPLIER]):
                out = channel * p[MULTIPLIER] + m
                y = p[Y] + sample * p[Y_SAMPLE] + out * p[Y_PLANE]
                _channel(p, f, arena, constants, index, scratch + i * phases, y, out, last_lines)
        begin += count


@njit(nogil=True, boundscheck=False)
def _channel(p, f, arena, constants, index, x, y, out, last_lines):
    """Computes one output channel from a padded input channel.

    Vectors are whole: what is too much of a line is overwritten by the next line, so columns go from
    right to left. The last lines have none behind them and are copied.
    """
    row, taps, width, height = p[ROW], p[TAPS], p[OUT_WIDTH], p[OUT_HEIGHT]
    base, constant = arena.ctypes.data, constants.ctypes.data
    values, bias = constant + 4 * (p[VALUES] + out * taps), constant + 4 * (p[BIAS] + out)
    flags = FIRST | (p[FLAGS] & CLIP)
    pieces = (height + p[MOST_LINES] - 1) // p[MOST_LINES]
    for piece in range(pieces):
        line, end = share(height, piece, pieces)
        is_copied = piece == pieces - 1 and width % LANES != 0
        target = last_lines if is_copied else y + line * width
        column = (width - 1) // LANES * LANES
        while column >= 0:
            _lines(
                p[KIND], end - line, base + 4 * (x + line * row + column), 4 * row,
                4 * p[PADDED_PLANE], index.ctypes.data + 4 * p[OFFSETS],
                index.ctypes.data + 4 * (p[OFFSETS] + taps), values, base + 4 * (target + column),
                4 * width, bias, flags, f[0], f[1],
            )  # fmt: skip
            column -= LANES
        if is_copied:
            copy_floats(base + 4 * (y + line * width), base + 4 * target, (end - line) * width)
