"""Windows that cover a whole small image: each channel is a product with a small matrix.

The last layers of a network for small images have planes of 1 x 1 or 2 x 2 pixels. Going down
their lines takes far longer than the arithmetic, so all pixels of an output plane are one vector.
"""

import functools

from numba import types

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.instructions import DWCONV_SMALL, executes
from keras_trim.inference.kernels.llvm import CLIP, I64, LANES, Body, loop, outlined
from keras_trim.inference.kernels.planes import place
from keras_trim.inference.kernels.work_sharing import take

AT = DWCONV_SMALL.at

_TOGETHER = 128  # planes that a thread takes at a time


@functools.cache
def small_window():
    """Makes `kernel(planes, x, x_plane, pixels, values, bias, y, y_plane, flags, low, high)`.

    For each plane it computes one vector, `bias + sum(values[i] * x[i])` over the pixels i of x.
    The flag `CLIP` clips it.

    Addresses: `x` and `y`, float32, planes `x_plane` and `y_plane` bytes apart; `values`, float32,
    (planes, pixels, LANES); `bias`, float32, (planes,).
    """
    address, i64, f32 = types.intp, types.int64, types.float32
    operands = (
        i64, address, i64, i64, address, address, address, i64, i64, f32, f32,
    )  # fmt: skip
    return outlined("small_product", operands, _build)


def _build(function):
    body = Body(function)
    b = body.b
    planes, x, x_plane, pixels, values, bias, y, y_plane, flags, low, high = function.args
    plane, next_plane = loop(b, planes, 1)
    source = b.add(x, b.mul(plane, x_plane))
    weights = b.add(values, b.mul(b.mul(plane, pixels), I64(4 * LANES)))
    start = body.splat(body.scalar_at(bias, plane))
    entry = b.block
    head, step, done = body.blocks("pixel", "add", "sums")
    b.branch(head)

    b.position_at_end(head)
    pixel, total = b.phi(I64), b.phi(body.vector)
    b.cbranch(b.icmp_signed("<", pixel, pixels), step, done)

    b.position_at_end(step)
    row = body.load(weights, b.mul(pixel, I64(4 * LANES)))
    added = body.multiply_add(body.splat(body.scalar_at(source, pixel)), row, total)
    for value, at_first, later in (
        (pixel, I64(0), b.add(pixel, I64(1))), (total, start, added)
    ):  # fmt: skip
        value.add_incoming(at_first, entry)
        value.add_incoming(later, step)
    b.branch(head)

    b.position_at_end(done)
    (clipped,) = body.clipped([total], flags, low, high)
    body.store(clipped, y, b.mul(plane, y_plane))
    next_plane()
    b.ret_void()


_planes = small_window()


@executes(DWCONV_SMALL)
@inner
def dwconv_small(p, f, arena, constants, control, thread, num_threads):
    """y[c * multiplier + m] = product with the pixels of x[c]."""
    base, planes = arena.ctypes.data, p[AT.batch] * p[AT.channels] * p[AT.multiplier]
    per_plane = p[AT.pixels] * LANES
    begin, end = take(control, planes, _TOGETHER, thread, num_threads)
    while begin < end:
        while begin < end:
            x, y, out = place(p, begin, p[AT.multiplier])
            count = 1
            if p[AT.multiplier] == 1:  # the next planes follow at equal distances
                count = min(end - begin, p[AT.channels] - out)
            _planes(
                count, base + 4 * x, 4 * p[AT.x_plane], p[AT.pixels],
                constants.ctypes.data + 4 * (p[AT.values] + out * per_plane),
                constants.ctypes.data + 4 * (p[AT.bias] + out), base + 4 * y, 4 * p[AT.y_plane],
                p[AT.flags] & CLIP, f[AT.low], f[AT.high],
            )  # fmt: skip
            begin += count
        begin, end = take(control, planes, _TOGETHER, thread, num_threads)
