"""Depthwise convolution without a padded copy: vectors over a whole plane, and masks.

Where a window reaches over the edge of the image, a mask per tap and vector leaves out the lanes
concerned. So a plane of 7 x 7 pixels takes four vectors, not seven lines of one each, and nothing
is copied. Which is faster for a layer depends on its size, and is measured.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils

from keras_trim.inference.kernels.planes import BATCH, CHANNELS, OPERANDS, WIDTH, place
from keras_trim.inference.kernels.threads import take
from keras_trim.inference.kernels.vector import CLIP, I32, I64, LANES, Body, outlined

_I16 = ir.IntType(16)
_VECTORS = 8  # sums at once
_TOGETHER = 8  # planes that a thread takes at a time


@functools.cache
def flat_window(vectors):
    """Makes `kernel(x, shifts, masks, vectors_in_plane, taps, values, y, bias, flags, low, high)`.

    It computes `vectors` vectors of `y[i] = clip(bias + sum(values[t] * x[i + shifts[t]]))`, of
    which a tap counts only where its mask has a one.

    Addresses: `x`, float32; `shifts`, int32, (taps,), in floats; `masks`, uint16, (taps,
    vectors_in_plane), lane 0 being the lowest bit; `values`, float32, (taps,); `y`, float32;
    `bias`, one float32.
    """
    address, i64, f32 = types.intp, types.int64, types.float32
    operands = (address,) * 3 + (i64, i64) + (address,) * 3 + (i64, f32, f32)
    return outlined(f"flat_window_{vectors}", operands, lambda f: _build(f, vectors))


def _build(function, vectors):
    body = Body(function)
    b = body.b
    x, shifts, masks, in_plane, taps, values, y, bias, flags, low, high = function.args
    mask_type = ir.VectorType(ir.IntType(1), LANES)
    zeros = ir.Constant(body.vector, [0.0] * LANES)
    # It reads memory only where the mask has a one: before the first plane there may be none.
    masked_load = cgutils.get_or_insert_function(
        function.module,
        ir.FunctionType(
            body.vector, [body.vector.as_pointer(), I32, mask_type, body.vector]
        ),
        f"llvm.masked.load.v{LANES}f32.p0",
    )  # fmt: skip
    start = body.splat(body.scalar_at(bias, I64(0)))
    entry = b.block
    head, step, done = body.blocks("head", "step", "done")
    b.branch(head)

    b.position_at_end(head)
    tap, masks_now = b.phi(I64), b.phi(I64)
    sums = [b.phi(body.vector) for _ in range(vectors)]
    b.cbranch(b.icmp_signed("<", tap, taps), step, done)

    b.position_at_end(step)
    weight = body.splat(body.scalar_at(values, tap))
    where = b.add(x, b.shl(b.sext(body.scalar_at(shifts, tap, I32), I64), I64(2)))
    for i, total in enumerate(sums):
        bits = body.scalar_at(masks_now, I64(i), _I16)
        if LANES < 16:
            bits = b.trunc(bits, ir.IntType(LANES))
        mask = b.bitcast(bits, mask_type)
        loaded = b.call(masked_load, [body.at(where, 4 * LANES * i), I32(4), mask, zeros])
        total.add_incoming(start, entry)
        total.add_incoming(body.multiply_add(weight, loaded, total), step)
    for value, at_first, later in (
        (tap, I64(0), b.add(tap, I64(1))),
        (masks_now, masks, b.add(masks_now, b.shl(in_plane, I64(1)))),
    ):
        value.add_incoming(at_first, entry)
        value.add_incoming(later, step)
    b.branch(head)

    b.position_at_end(done)
    for i, total in enumerate(body.clipped(sums, flags, low, high)):
        body.store(total, y, 4 * LANES * i)
    b.ret_void()


def masks_of_taps(height, width, offsets, out_height):
    """Which lanes of a plane's vectors read inside of the image, for each tap.

    Args:
        height, width: Integers, of the image.
        offsets: Array of integers, (taps, 2): how many rows and columns from a pixel a tap reads.
        out_height: Integer. The rows of the output, which is as wide as the image.

    Returns:
        `(shifts, masks)`, as `flat_window` reads them.
    """
    pixels = out_height * width
    vectors = -(-pixels // LANES)
    y, x = np.divmod(np.arange(vectors * LANES), width)
    rows, columns = y + offsets[:, :1], x + offsets[:, 1:]
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    is_inside &= np.arange(vectors * LANES) < pixels
    bits = is_inside.reshape(len(offsets), vectors, LANES) << np.arange(LANES)
    return offsets @ [width, 1], bits.sum(axis=2).astype(np.uint16)


_1, _2, _3, _4, _5, _6, _7, _8 = (flat_window(vectors) for vectors in range(1, _VECTORS + 1))

(
    MULTIPLIER, OUT_HEIGHT, OUT_WIDTH, STRIDE_Y, STRIDE_X, SHIFTS, MASKS, VECTORS, TAPS, VALUES,
    BIAS, SCRATCH, SCRATCH_SIZE, FLAGS,
) = range(OPERANDS + 1, OPERANDS + 15)  # fmt: skip


@njit(nogil=True, boundscheck=False)
def _plane(x, shifts, masks, vectors, taps, values, y, bias, flags, low, high):
    for first in range(0, vectors, _VECTORS):
        start = 4 * LANES * first
        a = (
            x + start, shifts, masks + 2 * first, vectors, taps, values, y + start, bias, flags,
            low, high,
        )  # fmt: skip
        left = min(vectors - first, _VECTORS)
        if left == 8:
            _8(*a)
        elif left == 7:
            _7(*a)
        elif left == 6:
            _6(*a)
        elif left == 5:
            _5(*a)
        elif left == 4:
            _4(*a)
        elif left == 3:
            _3(*a)
        elif left == 2:
            _2(*a)
        else:
            _1(*a)


@njit(nogil=True, boundscheck=False)
def depthwise_flat(p, f, arena, constants, index, short_index, control, thread, num_threads):
    """y[c * multiplier + m] = clip(kernel[c, m] * x[c] + bias).

    With a scratch buffer, windows are computed at every pixel of x, and those that the strides ask
    for are copied from there.
    """
    base, planes = arena.ctypes.data, p[BATCH] * p[CHANNELS] * p[MULTIPLIER]
    scratch = p[SCRATCH] + thread * p[SCRATCH_SIZE]
    begin, end = take(control, planes, _TOGETHER, thread, num_threads)
    while begin < end:
        for item in range(begin, end):
            x, y, out = place(p, item, p[MULTIPLIER])
            _plane(
                base + 4 * x, index.ctypes.data + 4 * p[SHIFTS],
                short_index.ctypes.data + 2 * p[MASKS], p[VECTORS], p[TAPS],
                constants.ctypes.data + 4 * (p[VALUES] + out * p[TAPS]),
                base + 4 * (scratch if p[SCRATCH_SIZE] else y),
                constants.ctypes.data + 4 * (p[BIAS] + out), p[FLAGS] & CLIP, f[0], f[1],
            )  # fmt: skip
            if p[SCRATCH_SIZE]:
                for i in range(p[OUT_HEIGHT]):
                    line = scratch + i * p[STRIDE_Y] * p[WIDTH]
                    for j in range(p[OUT_WIDTH]):
                        arena[y + i * p[OUT_WIDTH] + j] = arena[line + j * p[STRIDE_X]]
        begin, end = take(control, planes, _TOGETHER, thread, num_threads)
