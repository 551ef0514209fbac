"""Windows that move over padded planes, line by line: depthwise convolutions and pooling."""

from numba import njit

from keras_trim.inference.kernels.copies import copy_floats
from keras_trim.inference.kernels.register_tile import multiply_add
from keras_trim.inference.kernels.stencil import stencil, window
from keras_trim.inference.kernels.threads import share
from keras_trim.inference.kernels.vector import LANES

(
    _max3x3s2_1, _max3x3s2_2, _max3x3s2_3, _max3x3s2_4, _max3x3s2_5, _max3x3s2_6, _max3x3s2_7,
    _max3x3s2_8,
) = (stencil("maximum", 3, 3, 2, 2, lines) for lines in range(1, 9))  # fmt: skip
(
    _max2x2s2_1, _max2x2s2_2, _max2x2s2_3, _max2x2s2_4, _max2x2s2_5, _max2x2s2_6, _max2x2s2_7,
    _max2x2s2_8,
) = (stencil("maximum", 2, 2, 2, 2, lines) for lines in range(1, 9))  # fmt: skip
(
    _sum3x3_1, _sum3x3_2, _sum3x3_3, _sum3x3_4, _sum3x3_5, _sum3x3_6, _sum3x3_7, _sum3x3_8,
) = (stencil("sum", 3, 3, 1, 1, lines) for lines in range(1, 9))  # fmt: skip
_any_product, _any_maximum, _any_sum = multiply_add(1, 1), window("maximum"), window("sum")

MOST_LINES = 8  # at once
_NUMBERS = {("maximum", 3, 3, 2, 2): 0, ("maximum", 2, 2, 2, 2): 1, ("sum", 3, 3, 1, 1): 2}
_ANY = {"product": 3, "maximum": 4, "sum": 5}
_ANY_PRODUCT, _ANY_MAXIMUM = _ANY["product"], _ANY["maximum"]


def window_number(kind, size, strides, dilation):
    """The number of the kernel for a window.

    Args:
        kind: String: "product", "maximum" or "sum".
        size, strides, dilation: Pairs of integers.
    """
    if tuple(dilation) != (1, 1):
        return _ANY[kind]
    return _NUMBERS.get((kind, *size, *strides), _ANY[kind])


@njit(nogil=True, boundscheck=False)
def _lines(
    number, lines, x, line, plane, offsets, taps, table, values, bias, y, y_line, flags, low, high
):
    """Computes one vector of pixels of each of some lines."""
    a = (x, line, plane, y, y_line)
    if number == 0:
        if lines == 8:
            _max3x3s2_8(*a)
        elif lines == 7:
            _max3x3s2_7(*a)
        elif lines == 6:
            _max3x3s2_6(*a)
        elif lines == 5:
            _max3x3s2_5(*a)
        elif lines == 4:
            _max3x3s2_4(*a)
        elif lines == 3:
            _max3x3s2_3(*a)
        elif lines == 2:
            _max3x3s2_2(*a)
        else:
            _max3x3s2_1(*a)
    elif number == 1:
        if lines == 8:
            _max2x2s2_8(*a)
        elif lines == 7:
            _max2x2s2_7(*a)
        elif lines == 6:
            _max2x2s2_6(*a)
        elif lines == 5:
            _max2x2s2_5(*a)
        elif lines == 4:
            _max2x2s2_4(*a)
        elif lines == 3:
            _max2x2s2_3(*a)
        elif lines == 2:
            _max2x2s2_2(*a)
        else:
            _max2x2s2_1(*a)
    elif number == 2:
        if lines == 8:
            _sum3x3_8(*a)
        elif lines == 7:
            _sum3x3_7(*a)
        elif lines == 6:
            _sum3x3_6(*a)
        elif lines == 5:
            _sum3x3_5(*a)
        elif lines == 4:
            _sum3x3_4(*a)
        elif lines == 3:
            _sum3x3_3(*a)
        elif lines == 2:
            _sum3x3_2(*a)
        else:
            _sum3x3_1(*a)
    elif number == _ANY_PRODUCT:
        for i in range(lines):
            _any_product(
                x + i * line, offsets, values, table, 1, y + i * y_line, 0, bias, 0, flags, low,
                high,
            )  # fmt: skip
    elif number == _ANY_MAXIMUM:
        for i in range(lines):
            _any_maximum(x + i * line, offsets, taps, y + i * y_line)
    else:
        for i in range(lines):
            _any_sum(x + i * line, offsets, taps, y + i * y_line)


@njit(nogil=True, boundscheck=False)
def window_plane(
    arena, x, row, plane, y, width, height, number, offsets, taps, values, bias, flags, low, high,
    last_lines,
):  # fmt: skip
    """Computes one plane of output from a padded plane of input.

    Vectors are whole: what is too much of a line is overwritten by the next line, so columns go
    from right to left. The last lines have none behind them: they are computed in scratch memory,
    at `last_lines`, and copied.

    `x`, `y` and `last_lines` count floats of the arena. `offsets` is the address of where each of
    `taps` reads, with the three numbers of a group of rows behind them.
    """
    base = arena.ctypes.data
    pieces = (height + MOST_LINES - 1) // MOST_LINES
    for piece in range(pieces):
        line, end = share(height, piece, pieces)
        # Fewer floats behind these lines than a vector may write too much.
        is_copied = width % LANES != 0 and (height - end) * width < LANES
        target = last_lines if is_copied else y + line * width
        column = (width - 1) // LANES * LANES
        while column >= 0:
            _lines(
                number, end - line, base + 4 * (x + line * row + column), 4 * row, 4 * plane,
                offsets, taps, offsets + 4 * taps, values, bias, base + 4 * (target + column),
                4 * width, flags, low, high,
            )  # fmt: skip
            column -= LANES
        if is_copied:
            copy_floats(base + 4 * (y + line * width), base + 4 * target, (end - line) * width)
