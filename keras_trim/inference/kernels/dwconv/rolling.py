"""Windows without a padded copy of the plane: goes down its lines, one vector of columns at a time.

Each input line is loaded once for all output lines whose windows contain it. Their sums stay in
registers until they are complete. Where a window crosses the left or right edge of the image, lanes
are masked out or set to the pad value. Above and below the image, the kernel reads a line of pad
values instead.
"""

import functools

from llvmlite import ir
from numba import types

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.dwconv.padded import SUM
from keras_trim.inference.kernels.instructions import DWCONV_ROLLING, executes
from keras_trim.inference.kernels.layout.copies import fill_vectors
from keras_trim.inference.kernels.llvm import (
    CLIP,
    I32,
    I64,
    LANES,
    LINE,
    Body,
    loop,
    outlined,
    splat,
)
from keras_trim.inference.kernels.planes import place
from keras_trim.inference.kernels.switch import switch
from keras_trim.inference.kernels.work_sharing import share, take

AT = DWCONV_ROLLING.at

WINDOWS = (  # (kind, size, stride), indexed by number
    ("product", 3, 1), ("product", 3, 2), ("product", 5, 1), ("product", 5, 2),
    ("maximum", 3, 2), ("maximum", 2, 2), ("sum", 3, 1), ("sum", 3, 2), ("sum", 2, 2),
)  # fmt: skip
MOST_BEFORE = 16  # columns of left padding; so many floats may be read before a plane
_PIXELS, _LEAST_LINES = 2048, 16  # pixels of a plane per call, but so many lines at least
_TOGETHER, _NARROW_TOGETHER = 4, 16  # planes that a thread takes at a time
_BAND = 1024  # least pixels per thread for threads to share out the lines of an image


@functools.cache
def rolling_window(kind, size, stride):
    """Makes `kernel(planes, x, x_plane, others, row, lines, rows, x_line, column, columns, values,
    num_values, bias, y, y_plane, y_line, count, flags, low, high, outside)`.

    For each of `planes` planes it computes `lines` lines, at least one, of `count` pixels. Pixel i
    of line l reduces the window `x[row + stride * l + j, column + stride * i + k]`. Outside of its
    `rows` x `columns` pixels, x is zero, or `outside` for a maximum. A "product" is
    `bias + sum(values[j, k] * x)`, a "sum" is `values[l, i] * sum(x)`; a "maximum" takes no values.
    The flag `CLIP` clips them. The kernel reads whole vectors: up to `3 * LANES` floats past a line
    of x or values, and `-column` floats before x.

    Addresses: `x`, float32, planes `x_plane` bytes apart with lines `x_line` bytes apart; `others`,
    float32, the line above and below the image; `values`, float32: of a product (size * size,) per
    plane, `num_values` bytes apart, of a sum lines `y_line` bytes apart; `bias`, float32,
    (planes,); `y`, float32, planes `y_plane` bytes apart with lines `y_line` bytes apart.
    """
    address, i64, f32 = types.intp, types.int64, types.float32
    operands = (
        i64, address, i64, address, *(i64,) * 6, address, i64, address, address, *(i64,) * 4, f32,
        f32, f32,
    )  # fmt: skip
    name = f"lines_{kind}_{size}_{stride}"
    return outlined(name, operands, lambda f: _build(f, kind, size, stride))


def _build(function, kind, size, stride):
    body = Body(function)
    b = body.b
    (
        planes, x, x_plane, others, row, lines, rows, x_line, column, columns, values, num_values,
        bias, y, y_plane, y_line, count, flags, low, high, outside,
    ) = function.args  # fmt: skip
    # AVX-512 adds under a mask for free; without it, lanes outside of the image are set to zero.
    adds_some = kind == "product" and LANES == 16
    zeros = ir.Constant(body.vector, [0.0] * LANES)
    outside = body.splat(outside) if kind == "maximum" else zeros
    columns = splat(b, b.trunc(columns, I32), I32)
    plane, next_plane = loop(b, planes, 1)
    x, y = b.add(x, b.mul(plane, x_plane)), b.add(y, b.mul(plane, y_plane))
    values, start = b.add(values, b.mul(plane, num_values)), None
    if kind == "product":
        weights = [body.splat(body.scalar_at(values, I64(i))) for i in range(size * size)]
        start = body.splat(body.scalar_at(bias, plane))
    # To prefetch: the floats that only the next vectors see or, for narrow lines, the next plane.
    next_vector = 4 * (size - 2 + (stride + 1) * LANES)
    is_narrow = b.icmp_signed("<=", count, I64(LINE))
    following_source = b.select(is_narrow, x_plane, I64(next_vector))
    at, next_columns = loop(b, count)  # the first pixel of a vector

    first = b.add(column, b.mul(at, I64(stride)))
    x, others = (b.add(base, b.shl(first, I64(2))) for base in (x, others))
    y = b.add(y, b.shl(at, I64(2)))
    masks = []  # for each column of the window, the lanes inside of the image
    for tap in range(size):
        lanes = [tap + stride * lane for lane in range(LANES)]
        places = b.add(
            splat(b, b.trunc(first, I32), I32), ir.Constant(ir.VectorType(I32, LANES), lanes)
        )
        masks.append(b.icmp_unsigned("<", places, columns))
    left = b.sub(count, at)

    def taps(source):
        """Returns what each column of the window reads of a line."""
        if stride == 1:
            seen = [body.load(source, 4 * i) for i in range(size)]
        else:
            seen = []
            for i in range(0, size, 2):
                halves = body.load(source, 4 * i), body.load(source, 4 * (i + LANES))
                for remainder in range(min(2, size - i)):
                    picked = range(remainder, 2 * LANES, 2)
                    picked = ir.Constant(ir.VectorType(I32, LANES), list(picked))
                    seen.append(b.shuffle_vector(*halves, picked))
        if adds_some:
            return seen
        return [b.select(mask, tap, outside) for mask, tap in zip(masks, seen, strict=True)]

    def add_line(totals, at_line, number):
        """Adds a line of x to the totals of all outputs whose windows contain it.

        Args:
            totals: List of vectors, one per output; `None` where nothing was added yet.
            at_line: LLVM value. The line's number in x.
            number: Integer. The line's number in the first output's window.
        """
        is_inside = b.icmp_unsigned("<", at_line, rows)  # unsigned: false for negative numbers too
        source = b.select(is_inside, b.add(x, b.mul(x_line, at_line)), others)
        seen = taps(source)
        body.fetch(source, following_source)
        for i in range(1, stride):
            body.fetch(source, next_vector + 4 * i * LANES)
        if kind != "product":  # reduced once: the same for all lines of the window
            joined = functools.reduce(functools.partial(body.joined, kind), seen)
        for out in range(len(totals)):
            line = number - stride * out  # of the window
            if not 0 <= line < size:
                continue
            if kind != "product":
                totals[out] = body.joined(kind, totals[out], joined)
                continue
            for j, tap in enumerate(seen):
                total = start if totals[out] is None else totals[out]
                totals[out] = body.multiply_add(weights[line * size + j], tap, total)
                if adds_some:
                    totals[out] = b.select(masks[j], totals[out], total)

    # Outputs whose windows begin before the last `stride` lines of the first one's window.
    ahead = -(-size // stride) - 1
    begun = [None] * ahead
    for number in range(size - stride):
        add_line(begun, b.add(row, I64(number)), number)
    entry = b.block
    each_line, end = body.blocks("line", "end")
    b.branch(each_line)

    b.position_at_end(each_line)
    line, totals = b.phi(I64), [b.phi(body.vector) for _ in begun]
    here = b.mul(y_line, line)
    now = [*totals, None]
    for number in range(size - stride, size):
        add_line(now, b.add(b.add(row, b.mul(line, I64(stride))), I64(number)), number)
    done = now[0]
    if kind == "sum":
        done = b.fmul(done, body.load(b.add(values, b.shl(at, I64(2))), here))
    (done,) = body.clipped([done], flags, low, high)
    body.store_first(done, left, y, here)
    following = b.add(line, I64(1))
    begun, now = [I64(0), *begun], [following, *now[1:]]
    for value, at_first, later in zip([line, *totals], begun, now, strict=True):
        value.add_incoming(at_first, entry)
        value.add_incoming(later, b.block)
    b.cbranch(b.icmp_signed("<", following, lines), each_line, end)

    b.position_at_end(end)
    next_columns()
    next_plane()
    b.ret_void()


_lines = switch(
    "planes, x, x_plane, others, row, lines, rows, x_line, column, columns, values, num_values, "
    "bias, y, y_plane, y_line, count, flags, low, high, outside",
    {number: rolling_window(*window) for number, window in enumerate(WINDOWS)},
)  # `_lines(number, ...)` runs the micro-kernel of a window


@executes(DWCONV_ROLLING)
@inner
def dwconv_rolling(p, f, arena, constants, control, thread, num_threads):
    """y[c * multiplier + m] = product, sum or maximum over the windows of x[c]."""
    base, planes = arena.ctypes.data, p[AT.batch] * p[AT.channels] * p[AT.multiplier]
    others = base + 4 * (p[AT.others] + thread * p[AT.others_size])
    values_line = p[AT.out_width] if p[AT.kind] == SUM else 0
    # Few enough lines to stay in the first-level cache until the next vectors read them again.
    most = max(_PIXELS // max(p[AT.width], 1), _LEAST_LINES)
    # SpMM splits large images by pixels. So each thread takes the same lines of all planes: its
    # input is in its own core's cache, and its output will be where SpMM reads it.
    is_large = p[AT.batch] == 1 and p[AT.height] * p[AT.width] >= _BAND * num_threads
    bands = num_threads if is_large else 1
    # A call costs as much as several narrow lines, so that one call computes several planes.
    is_narrow = bands == p[AT.multiplier] == 1 and p[AT.out_width] <= LINE
    together = _NARROW_TOGETHER if is_narrow else _TOGETHER
    begin, end = take(control, bands * planes, together, thread, num_threads)
    if begin < end:  # otherwise another instruction may already use this scratch memory
        fill_vectors(others, p[AT.others_size], f[AT.pad_value])
    while begin < end:
        while begin < end:
            band = begin // planes if begin >= planes else 0
            x, y, out = place(p, begin - band * planes, p[AT.multiplier])
            count = min(end - begin, p[AT.channels] - out) if is_narrow else 1
            line, last = (
                share(p[AT.out_height], band, bands) if bands > 1 else (0, p[AT.out_height])
            )
            while line < last:
                lines = min(most, last - line)
                values = p[AT.values] + out * p[AT.num_values] + line * values_line
                _lines(
                    p[AT.number], count, base + 4 * x, 4 * p[AT.x_plane], others + 4 * MOST_BEFORE,
                    line * p[AT.stride_y] - p[AT.top], lines, p[AT.height], 4 * p[AT.width],
                    -p[AT.left],
                    p[AT.width], constants.ctypes.data + 4 * values, 4 * p[AT.num_values],
                    constants.ctypes.data + 4 * (p[AT.bias] + out),
                    base + 4 * (y + line * p[AT.out_width]), 4 * p[AT.y_plane], 4 * p[AT.out_width],
                    p[AT.out_width], p[AT.flags] & CLIP, f[AT.low], f[AT.high], f[AT.pad_value],
                )  # fmt: skip
                line += lines
            begin += count
        begin, end = take(control, bands * planes, together, thread, num_threads)
