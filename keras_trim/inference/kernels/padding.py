"""Copies of planes: padding written out, strides taken apart, windows unfolded.

A convolution with stride s reads every s-th row and column. Its input is copied into s * s planes
per channel, one for each remainder of row and column by s, so that the convolution itself has
stride 1 within each of them.
"""

from numba import njit

from keras_trim.inference.kernels.copies import copy_floats, fill_vectors, split_pixels
from keras_trim.inference.kernels.gaps import IS_AVAILABLE as HAS_TABLES
from keras_trim.inference.kernels.gaps import spread_rows
from keras_trim.inference.kernels.planes import (
    BATCH,
    CHANNELS,
    HEIGHT,
    OPERANDS,
    WIDTH,
    X_PLANE,
    X_SAMPLE,
    Y_PLANE,
    Y_SAMPLE,
    X,
    Y,
    place,
)
from keras_trim.inference.kernels.threads import take

(
    PHASE_PLANE, ROW, ROWS, TOP, LEFT, STRIDE_Y, STRIDE_X, SPREAD_Y, SPREAD_X, PHASES_Y, PHASES_X,
    STARTS, MASKS, VECTORS,
) = range(OPERANDS + 1, OPERANDS + 15)  # fmt: skip
_TOGETHER = 4  # planes that a thread takes at a time

_spread_rows = spread_rows() if HAS_TABLES else None
_copy, _copy_image = split_pixels(1, 1), split_pixels(3, 1)
_halve, _halve_image = split_pixels(1, 2), split_pixels(3, 2)


@njit(nogil=True, boundscheck=False)
def pad_plane(
    arena, x, height, width, y, plane, rows, row, top, left, stride_y, stride_x, spread_y,
    spread_x, phases_y, phases_x, value,
):  # fmt: skip
    """Copies one plane into `phases_y * phases_x` planes of `rows` x `row`, `value` around it.

    With `spread` > 1 pixels are set that far apart, with zeros between (transposed convolution).
    """
    for phase in range(phases_y):
        _pad_phase(
            arena, x, height, width, 1, y + phase * phases_x * plane, 0, plane, rows, row, top,
            left, stride_y, stride_x, spread_y, spread_x, phase, phases_x, value,
        )  # fmt: skip


@njit(nogil=True, boundscheck=False)
def _pad_phase(
    arena, x, height, width, channels, y, distance, plane, rows, row, top, left, stride_y, stride_x,
    spread_y, spread_x, phase, phases_x, value,
):  # fmt: skip
    """Makes those of the padded planes that have every `stride_y`-th row.

    The pixels of x have 1 or 3 channels, those of y lie `distance` floats apart.

    Vectors are whole. Behind the pixels of a row they write its padding and that at the beginning
    of the next row; what is too much is overwritten by the next row, and planes need `left` and
    LANES floats of room behind their last one.
    """
    base = arena.ctypes.data
    is_plain = stride_x == 1 and spread_x == 1 and left >= 0
    is_halved = stride_x == 2 and left >= 0 and (phases_x == 2 or left == 0) and spread_x == 1
    for channel in range(channels):
        for phase_x in range(phases_x):
            start = y + channel * distance + phase_x * plane
            fill_vectors(base + 4 * start, max(left, 0), value)
    for j in range(rows):
        source_row = j * stride_y + phase - top
        target = y + j * row
        source = x + source_row // spread_y * width * channels
        if source_row < 0 or source_row > (height - 1) * spread_y or source_row % spread_y:
            for channel in range(channels):
                for phase_x in range(phases_x):
                    start = target + channel * distance + phase_x * plane
                    fill_vectors(base + 4 * start, row + max(left, 0), value)
        elif is_plain:
            a = (
                base + 4 * (target + left), 0, 4 * distance, base + 4 * source,
                min(width, row - left), 0, row, value,
            )  # fmt: skip
            if channels == 1:
                _copy(*a)
            else:
                _copy_image(*a)
        elif is_halved:
            # An odd number of columns before puts the odd pixels into the first phase. With one
            # phase only, both go to the same place, and the even ones stay. Pixels that no window
            # sees are left out, as they would lie in the padding of the next row.
            even, odd = left // 2, (left + 1) // 2
            to_even = target + even + (plane if left % 2 else 0)
            to_odd = target + odd + (0 if left % 2 or phases_x == 1 else plane)
            a = (
                base + 4 * to_even, base + 4 * to_odd, 4 * distance, base + 4 * source,
                min((width + 1) // 2, row - even), min(width // 2, row - odd), row, value,
            )  # fmt: skip
            if channels == 1:
                _halve(*a)
            else:
                _halve_image(*a)
        else:
            for channel in range(channels):
                for phase_x in range(phases_x):
                    for i in range(row):
                        column = i * stride_x + phase_x - left
                        at = target + channel * distance + phase_x * plane + i
                        if column < 0 or column > (width - 1) * spread_x:
                            arena[at] = value
                        elif column % spread_x:
                            arena[at] = 0
                        else:
                            pixel = column // spread_x
                            arena[at] = arena[source + pixel * channels + channel]


@njit(nogil=True, boundscheck=False)
def pad(p, f, arena, index, short_index, control, thread, num_threads):
    """Pads all planes of a batch: with tables of `gaps.py`, for `VECTORS` vectors, or without.

    With an `X_PLANE` of 0 the three channels of each pixel lie together.
    """
    if p[X_PLANE] == 0:
        _pad_images(p, f, arena, control, thread, num_threads)
        return
    base, planes = arena.ctypes.data, p[BATCH] * p[CHANNELS]
    begin, end = take(control, planes, _TOGETHER, thread, num_threads)
    while begin < end:
        for item in range(begin, end):
            x, y, _ = place(p, item, 1)
            if HAS_TABLES and p[VECTORS]:
                _spread_rows(
                    base + 4 * y, base + 4 * x, index.ctypes.data + 4 * p[STARTS],
                    short_index.ctypes.data + 2 * p[MASKS], p[VECTORS], f[0],
                )  # fmt: skip
                continue
            pad_plane(
                arena, x, p[HEIGHT], p[WIDTH], y, p[PHASE_PLANE], p[ROWS], p[ROW], p[TOP], p[LEFT],
                p[STRIDE_Y], p[STRIDE_X], p[SPREAD_Y], p[SPREAD_X], p[PHASES_Y], p[PHASES_X], f[0],
            )  # fmt: skip
        begin, end = take(control, planes, _TOGETHER, thread, num_threads)


@njit(nogil=True, boundscheck=False)
def _pad_images(p, f, arena, control, thread, num_threads):
    item, end = take(control, p[BATCH] * p[PHASES_Y], 1, thread, num_threads)
    while item < end:
        sample, phase = item // p[PHASES_Y], item % p[PHASES_Y]
        y = p[Y] + sample * p[Y_SAMPLE] + phase * p[PHASES_X] * p[PHASE_PLANE]
        _pad_phase(
            arena, p[X] + sample * p[X_SAMPLE], p[HEIGHT], p[WIDTH], p[CHANNELS], y, p[Y_PLANE],
            p[PHASE_PLANE], p[ROWS], p[ROW], p[TOP], p[LEFT], p[STRIDE_Y], p[STRIDE_X], p[SPREAD_Y],
            p[SPREAD_X], phase, p[PHASES_X], f[0],
        )  # fmt: skip
        item, end = take(control, p[BATCH] * p[PHASES_Y], 1, thread, num_threads)


OUT_HEIGHT, OUT_WIDTH, TAPS, OFFSETS = range(OPERANDS + 1, OPERANDS + 5)


@njit(nogil=True, boundscheck=False)
def unfold(p, f, arena, index, control, thread, num_threads):
    """y[c * taps + t] = the pixels of x[c], padded, that tap t of a window reads.

    Its rows are `WIDTH` floats apart in x.
    """
    base, planes = arena.ctypes.data, p[BATCH] * p[CHANNELS] * p[TAPS]
    begin, end = take(control, planes, _TOGETHER, thread, num_threads)
    while begin < end:
        for item in range(begin, end):
            x, y, plane = place(p, item, p[TAPS])
            x += index[p[OFFSETS] + plane % p[TAPS]]
            for i in range(p[OUT_HEIGHT]):
                copy_floats(
                    base + 4 * (y + i * p[OUT_WIDTH]), base + 4 * (x + i * p[WIDTH]), p[OUT_WIDTH]
                )
        begin, end = take(control, planes, _TOGETHER, thread, num_threads)
