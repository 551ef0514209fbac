"""Windows without a padded copy of the plane: some lines at a time, from edge to edge.

A line of the input is loaded once for all lines of the output that need it. Where a window reaches
over the left or right edge of the image, lanes are set to what is outside of it (zero, or the least
of numbers); above and below it, a line of these takes the place of one of the image.
"""

import functools

from llvmlite import ir
from numba import njit, types

from keras_trim.inference.kernels.copies import fill_vectors
from keras_trim.inference.kernels.planes import BATCH, CHANNELS, HEIGHT, WIDTH, place
from keras_trim.inference.kernels.threads import share, take
from keras_trim.inference.kernels.vector import CLIP, I32, I64, LANES, Body, outlined, splat
from keras_trim.inference.kernels.windows import (
    BIAS,
    FLAGS,
    HIGH,
    KIND,
    LEFT,
    LOW,
    MULTIPLIER,
    NUM_VALUES,
    OUT_HEIGHT,
    OUT_WIDTH,
    OUTSIDE,
    STRIDE_Y,
    SUM,
    TOP,
    VALUES,
    WINDOW_OPERANDS,
)

WINDOWS = (  # (kind, size, stride), by their numbers
    ("product", 3, 1), ("product", 3, 2), ("product", 5, 1), ("product", 5, 2),
    ("maximum", 3, 2), ("maximum", 2, 2), ("sum", 3, 2), ("sum", 2, 2),
)  # fmt: skip
MOST_BEFORE = 16  # columns of padding on the left: what may be read in front of a plane
_LINES = 4  # at once
_TOGETHER = 4  # planes that a thread takes at a time
_BAND = 1024  # pixels of an image that are worth a thread of its own


@functools.cache
def line_window(kind, size, stride, lines):
    """Makes `kernel(x, others, row, rows, x_line, column, columns, values, bias, y, y_line, count,
    flags, low, high, outside)`.

    It computes `lines` lines of `count` pixels each, of what is made of the pixels
    `x[row + stride * l + j, column + stride * i + k]`, where x is zero, for a maximum `outside`,
    outside of its `rows` x `columns` pixels. A "product" is `clip(bias + sum(values[j, k] * x))`,
    a "sum" `values[l, i] * sum(x)`; a "maximum" takes no values. Vectors are whole: it reads up to
    `3 * LANES` floats behind a line of x and one of values, and `-column` in front of x.

    Addresses: `x`, float32, a plane with lines `x_line` bytes apart; `others`, float32, in place of
    a line of x; `values`, float32, (size * size,), or lines `y_line` bytes apart; `bias`, one
    float32; `y`, float32, lines `y_line` bytes apart.
    """
    address, i64, f32 = types.intp, types.int64, types.float32
    operands = (address, address, *(i64,) * 5, *(address,) * 3, i64, i64, i64, f32, f32, f32)
    name = f"lines_{kind}_{size}_{stride}_{lines}"
    return outlined(name, operands, lambda f: _build(f, kind, size, stride, lines))


def _build(function, kind, size, stride, lines):
    body = Body(function)
    b = body.b
    (
        x, others, row, rows, x_line, column, columns, values, bias, y, y_line, count, flags, low,
        high, outside,
    ) = function.args  # fmt: skip
    if kind == "product":
        weights = [body.splat(body.scalar_at(values, I64(i))) for i in range(size * size)]
        totals = [body.splat(body.scalar_at(bias, I64(0)))] * lines
    else:
        totals = [None] * lines
    # A processor loads zeros where a mask has none for free.
    zeros = ir.Constant(body.vector, [0.0] * LANES)
    outside = body.splat(outside) if kind == "maximum" else zeros
    sources = []
    for i in range((lines - 1) * stride + size):
        this = b.add(row, I64(i))
        is_inside = b.icmp_unsigned("<", this, rows)  # not negative either
        sources.append(b.select(is_inside, b.add(x, b.mul(x_line, this)), others))
    columns = splat(b, b.trunc(columns, I32), I32)
    entry = b.block
    loop, whole, part, following, done = body.blocks("loop", "whole", "part", "following", "done")
    b.branch(loop)

    b.position_at_end(loop)
    at = b.phi(I64)  # the first pixel of this vector
    at.add_incoming(I64(0), entry)
    first = b.add(column, b.mul(at, I64(stride)))
    masks = {}

    def load(source, offset):
        """A vector from the column `first + offset` on."""
        if offset not in masks:
            lanes = [offset + lane for lane in range(LANES)]
            places = b.add(
                splat(b, b.trunc(first, I32), I32), ir.Constant(ir.VectorType(I32, LANES), lanes)
            )
            masks[offset] = b.icmp_unsigned("<", places, columns)
        loaded = body.load(b.add(source, b.shl(first, I64(2))), 4 * offset)
        return b.select(masks[offset], loaded, outside)

    def taps(source):
        """What each column of the window sees of a line."""
        if stride == 1:
            return [load(source, i) for i in range(size)]
        seen = []
        for i in range(0, size, 2):
            halves = load(source, i), load(source, i + LANES)
            for remainder in range(min(2, size - i)):
                picked = range(remainder, 2 * LANES, 2)
                picked = ir.Constant(ir.VectorType(I32, LANES), list(picked))
                seen.append(b.shuffle_vector(*halves, picked))
        return seen

    for i, source in enumerate(sources):
        seen = taps(source)
        if kind != "product":  # of a line, whatever line of the window it is
            joined = functools.reduce(functools.partial(body.joined, kind), seen)
        for out in range(lines):
            line = i - stride * out  # of the window
            if not 0 <= line < size:
                continue
            if kind == "product":
                for j, tap in enumerate(seen):
                    totals[out] = body.multiply_add(weights[line * size + j], tap, totals[out])
            else:
                totals[out] = body.joined(kind, totals[out], joined)
    here = b.shl(at, I64(2))
    if kind == "product":
        totals = body.clipped(totals, flags, low, high)
    elif kind == "sum":
        for out in range(lines):
            factors = body.load(b.add(values, here), b.mul(y_line, I64(out)))
            totals[out] = b.fmul(totals[out], factors)
    target = b.add(y, here)
    left = b.sub(count, at)
    b.cbranch(b.icmp_signed(">=", left, I64(LANES)), whole, part)
    b.position_at_end(whole)
    for out, total in enumerate(totals):
        body.store(total, target, b.mul(y_line, I64(out)))
    b.branch(following)
    b.position_at_end(part)
    for out, total in enumerate(totals):
        body.store_first(total, left, target, b.mul(y_line, I64(out)))
    b.branch(following)
    b.position_at_end(following)
    after = b.add(at, I64(LANES))
    at.add_incoming(after, following)
    b.cbranch(b.icmp_signed("<", after, count), loop, done)
    b.position_at_end(done)
    b.ret_void()


(
    (_3_1, _3_2, _3_3, _3_4), (_3s2_1, _3s2_2, _3s2_3, _3s2_4),
    (_5_1, _5_2, _5_3, _5_4), (_5s2_1, _5s2_2, _5s2_3, _5s2_4),
    (_max3_1, _max3_2, _max3_3, _max3_4), (_max2_1, _max2_2, _max2_3, _max2_4),
    (_sum3_1, _sum3_2, _sum3_3, _sum3_4), (_sum2_1, _sum2_2, _sum2_3, _sum2_4),
) = (
    tuple(line_window(*window, lines) for lines in range(1, _LINES + 1)) for window in WINDOWS
)  # fmt: skip

NUMBER, OTHERS, OTHERS_SIZE = range(WINDOW_OPERANDS + 1, WINDOW_OPERANDS + 4)


@njit(nogil=True, boundscheck=False)
def _lines(
    number, lines, x, others, row, rows, x_line, column, columns, values, bias, y, y_line, count,
    flags, low, high, outside,
):  # fmt: skip
    a = (
        x, others, row, rows, x_line, column, columns, values, bias, y, y_line, count, flags, low,
        high, outside,
    )  # fmt: skip
    if number == 0:
        if lines == 4:
            _3_4(*a)
        elif lines == 3:
            _3_3(*a)
        elif lines == 2:
            _3_2(*a)
        else:
            _3_1(*a)
    elif number == 1:
        if lines == 4:
            _3s2_4(*a)
        elif lines == 3:
            _3s2_3(*a)
        elif lines == 2:
            _3s2_2(*a)
        else:
            _3s2_1(*a)
    elif number == 2:
        if lines == 4:
            _5_4(*a)
        elif lines == 3:
            _5_3(*a)
        elif lines == 2:
            _5_2(*a)
        else:
            _5_1(*a)
    elif number == 3:
        if lines == 4:
            _5s2_4(*a)
        elif lines == 3:
            _5s2_3(*a)
        elif lines == 2:
            _5s2_2(*a)
        else:
            _5s2_1(*a)
    elif number == 4:
        if lines == 4:
            _max3_4(*a)
        elif lines == 3:
            _max3_3(*a)
        elif lines == 2:
            _max3_2(*a)
        else:
            _max3_1(*a)
    elif number == 5:
        if lines == 4:
            _max2_4(*a)
        elif lines == 3:
            _max2_3(*a)
        elif lines == 2:
            _max2_2(*a)
        else:
            _max2_1(*a)
    elif number == 6:
        if lines == 4:
            _sum3_4(*a)
        elif lines == 3:
            _sum3_3(*a)
        elif lines == 2:
            _sum3_2(*a)
        else:
            _sum3_1(*a)
    else:
        if lines == 4:
            _sum2_4(*a)
        elif lines == 3:
            _sum2_3(*a)
        elif lines == 2:
            _sum2_2(*a)
        else:
            _sum2_1(*a)


@njit(nogil=True, boundscheck=False)
def windows_lines(p, f, arena, constants, control, thread, num_threads):
    """y[c * multiplier + m] = what is made of the windows of x[c]."""
    base, planes = arena.ctypes.data, p[BATCH] * p[CHANNELS] * p[MULTIPLIER]
    others = base + 4 * (p[OTHERS] + thread * p[OTHERS_SIZE])
    values_line = p[OUT_WIDTH] if p[KIND] == SUM else 0
    # The first pieces of a plane have one line more than the others.
    pieces = (p[OUT_HEIGHT] + _LINES - 1) // _LINES
    least, longer = p[OUT_HEIGHT] // pieces, p[OUT_HEIGHT] % pieces
    # Products part large images by pixels. So each thread keeps to some lines of all planes: what
    # it reads is in the cache of its own core, and what it writes will be.
    is_large = p[BATCH] == 1 and p[HEIGHT] * p[WIDTH] >= _BAND * num_threads
    bands = num_threads if is_large else 1
    begin, end = take(control, bands * planes, _TOGETHER, thread, num_threads)
    if begin < end:  # else its scratch memory may be another instruction's by now
        fill_vectors(others, p[OTHERS_SIZE], f[OUTSIDE])
    while begin < end:
        for item in range(begin, end):
            band = item // planes if item >= planes else 0
            x, y, out = place(p, item - band * planes, p[MULTIPLIER])
            piece, last_piece = share(pieces, band, bands) if bands > 1 else (0, pieces)
            line = piece * least + min(piece, longer)
            while piece < last_piece:
                lines = least + 1 if piece < longer else least
                values = p[VALUES] + out * p[NUM_VALUES] + line * values_line
                _lines(
                    p[NUMBER], lines, base + 4 * x, others + 4 * MOST_BEFORE,
                    line * p[STRIDE_Y] - p[TOP], p[HEIGHT], 4 * p[WIDTH], -p[LEFT], p[WIDTH],
                    constants.ctypes.data + 4 * values,
                    constants.ctypes.data + 4 * (p[BIAS] + out),
                    base + 4 * (y + line * p[OUT_WIDTH]), 4 * p[OUT_WIDTH], p[OUT_WIDTH],
                    p[FLAGS] & CLIP, f[LOW], f[HIGH], f[OUTSIDE],
                )  # fmt: skip
                line += lines
                piece += 1
        begin, end = take(control, bands * planes, _TOGETHER, thread, num_threads)
