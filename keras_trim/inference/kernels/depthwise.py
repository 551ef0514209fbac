"""Depthwise convolution: each channel by itself, padded in a scratch buffer that stays in cache."""

from numba import njit

from keras_trim.inference.kernels.padding import pad_plane
from keras_trim.inference.kernels.threads import share
from keras_trim.inference.kernels.vector import CLIP, FIRST, LANES, copy_floats, multiply_add

(
    _lines_1, _lines_2, _lines_3, _lines_4, _lines_5, _lines_6, _lines_7, _lines_8,
) = (multiply_add(1, lines, in_lines=True) for lines in range(1, 9))  # fmt: skip
_MOST_LINES = 8

(
    X, X_SAMPLE, X_PLANE, Y, Y_SAMPLE, Y_PLANE, BATCH, CHANNELS, MULTIPLIER, HEIGHT, WIDTH,
    OUT_HEIGHT, OUT_WIDTH, TOP, LEFT, STRIDE_Y, STRIDE_X, ROWS, ROW, OFFSETS, TAPS, VALUES, BIAS,
    SCRATCH, SCRATCH_SIZE, PADDED_PLANE, FLAGS, PHASES_Y, PHASES_X,
) = range(1, 30)  # fmt: skip


@njit(nogil=True, boundscheck=False)
def _lines(lines, x, x_line, offsets, values, taps, y, y_line, bias, flags, low, high):
    """Computes one vector of pixels of each of up to 8 lines."""
    a = (x, offsets, values, taps, y, y_line, bias, x_line, flags, low, high)
    if lines == 8:
        _lines_8(*a)
    elif lines == 7:
        _lines_7(*a)
    elif lines == 6:
        _lines_6(*a)
    elif lines == 5:
        _lines_5(*a)
    elif lines == 4:
        _lines_4(*a)
    elif lines == 3:
        _lines_3(*a)
    elif lines == 2:
        _lines_2(*a)
    else:
        _lines_1(*a)


@njit(nogil=True, boundscheck=False)
def depthwise(p, f, arena, constants, index, thread, num_threads):
    """y[c * multiplier + m] = clip(kernel[c, m] * x[c] + bias)."""
    begin, end = share(p[BATCH] * p[CHANNELS], thread, num_threads)
    row, taps, width, height = p[ROW], p[TAPS], p[OUT_WIDTH], p[OUT_HEIGHT]
    scratch = p[SCRATCH] + thread * p[SCRATCH_SIZE]
    last_line = scratch + p[PHASES_Y] * p[PHASES_X] * p[PADDED_PLANE]
    base = arena.ctypes.data
    offsets = index.ctypes.data + 4 * p[OFFSETS]
    flags = FIRST | (p[FLAGS] & CLIP)
    for item in range(begin, end):
        sample, channel = item // p[CHANNELS], item % p[CHANNELS]
        pad_plane(
            arena, p[X] + sample * p[X_SAMPLE] + channel * p[X_PLANE], p[HEIGHT], p[WIDTH],
            scratch, p[PADDED_PLANE], p[ROWS], row, p[TOP], p[LEFT],
            p[STRIDE_Y], p[STRIDE_X], 1, 1, p[PHASES_Y], p[PHASES_X], 0.0,
        )  # fmt: skip
        for m in range(p[MULTIPLIER]):
            out = channel * p[MULTIPLIER] + m
            start = p[Y] + sample * p[Y_SAMPLE] + out * p[Y_PLANE]
            values = constants.ctypes.data + 4 * (p[VALUES] + out * taps)
            bias = constants.ctypes.data + 4 * (p[BIAS] + out)
            # Whole vectors: what is too much of a line is overwritten by the next line, so columns
            # go from right to left. The last line has none behind it.
            pieces = (height - 1 + _MOST_LINES - 1) // _MOST_LINES
            for piece in range(pieces + 1):
                is_last = piece == pieces
                line, end = share(height - 1, piece, pieces) if not is_last else (height - 1, height)
                y = last_line if is_last else start + line * width
                column = (width - 1) // LANES * LANES
                while column >= 0:
                    _lines(
                        end - line, base + 4 * (scratch + line * row + column), 4 * row, offsets,
                        values, taps, base + 4 * (y + column), 4 * width, bias, flags, f[0], f[1],
                    )  # fmt: skip
                    column -= LANES
            copy_floats(base + 4 * (start + (height - 1) * width), base + 4 * last_line, width)
