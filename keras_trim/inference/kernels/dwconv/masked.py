"""Windows without a padded copy of the plane: vectors span the whole plane, with lane masks.

Where a window crosses the edge of the image, a mask per tap and vector leaves out the lanes
outside. So a plane of 7 x 7 pixels takes four vectors, not seven lines of one vector each, and
nothing is copied. Which kernel is faster depends on the layer's size; the tuner measures it.
"""

import functools
import math

from llvmlite import ir
from numba import types
from numba.core import cgutils

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.dwconv.padded import MAXIMUM, PRODUCT
from keras_trim.inference.kernels.instructions import DWCONV_MASKED, executes
from keras_trim.inference.kernels.lane_masks import mask_at
from keras_trim.inference.kernels.llvm import CLIP, I32, I64, LANES, Body, outlined
from keras_trim.inference.kernels.planes import place
from keras_trim.inference.kernels.switch import switch
from keras_trim.inference.kernels.work_sharing import take

AT = DWCONV_MASKED.at

_VECTORS = 8  # at once, for a product
_POOLED_VECTORS = 4  # for a sum or maximum
_TOGETHER = 8  # planes that a thread takes at a time


@functools.cache
def masked_window(kind, vectors):
    """Makes `kernel(x, shifts, masks, vectors_in_plane, taps, values, y, bias, flags, low, high,
    outside)`.

    It computes `vectors` vectors. Pixel i reduces the pixels `x[i + shifts[t]]` of all taps t.
    Where the mask of a tap has a zero bit, x is zero, or `outside` for a maximum. A "product" is
    `bias + sum(values[t] * x)`, a "sum" is `values[i] * sum(x)`; a "maximum" takes no values. The
    flag `CLIP` clips them.

    Addresses: `x`, float32; `shifts`, int32, (taps,), in floats; `masks`, uint16, (taps,
    vectors_in_plane), lane 0 being the lowest bit; `values`, float32; `y`, float32; `bias`, one
    float32.
    """
    address, i64, f32 = types.intp, types.int64, types.float32
    operands = (address,) * 3 + (i64, i64) + (address,) * 3 + (i64, f32, f32, f32)
    return outlined(f"flat_{kind}_{vectors}", operands, lambda f: _build(f, kind, vectors))


def _build(function, kind, vectors):
    body = Body(function)
    b = body.b
    x, shifts, masks, in_plane, taps, values, y, bias, flags, low, high, outside = function.args
    mask_type = ir.VectorType(ir.IntType(1), LANES)
    # A masked load sets the other lanes to zero for free.
    zeros = ir.Constant(body.vector, [0.0] * LANES)
    others = body.splat(outside) if kind == "maximum" else zeros
    # It touches no memory of masked-out lanes: there may be none before the first plane.
    masked_load = cgutils.get_or_insert_function(
        function.module,
        ir.FunctionType(
            body.vector, [body.vector.as_pointer(), I32, mask_type, body.vector]
        ),
        f"llvm.masked.load.v{LANES}f32.p0",
    )  # fmt: skip
    if kind == "product":
        start = body.splat(body.scalar_at(bias, I64(0)))
    else:
        start = ir.Constant(body.vector, [0.0 if kind == "sum" else -math.inf] * LANES)
    entry = b.block
    head, step, done = body.blocks("head", "step", "done")
    b.branch(head)

    b.position_at_end(head)
    tap, masks_now = b.phi(I64), b.phi(I64)
    sums = [b.phi(body.vector) for _ in range(vectors)]
    b.cbranch(b.icmp_signed("<", tap, taps), step, done)

    b.position_at_end(step)
    weight = body.splat(body.scalar_at(values, tap)) if kind == "product" else None
    where = b.add(x, b.shl(b.sext(body.scalar_at(shifts, tap, I32), I64), I64(2)))
    for i, total in enumerate(sums):
        mask = mask_at(body, masks_now, I64(i))
        loaded = b.call(masked_load, [body.at(where, 4 * LANES * i), I32(4), mask, others])
        total.add_incoming(start, entry)
        if kind == "product":
            joined = body.multiply_add(weight, loaded, total)
        else:
            joined = body.joined(kind, total, loaded)
        total.add_incoming(joined, step)
    for value, at_first, later in (
        (tap, I64(0), b.add(tap, I64(1))),
        (masks_now, masks, b.add(masks_now, b.shl(in_plane, I64(1)))),
    ):
        value.add_incoming(at_first, entry)
        value.add_incoming(later, step)
    b.branch(head)

    b.position_at_end(done)
    if kind == "sum":
        sums = [b.fmul(total, body.load(values, 4 * LANES * i)) for i, total in enumerate(sums)]
    sums = body.clipped(sums, flags, low, high)
    for i, total in enumerate(sums):
        body.store(total, y, 4 * LANES * i)
    b.ret_void()


_PARAMETERS = "x, shifts, masks, in_plane, taps, values, y, bias, flags, low, high, outside"
_product = switch(
    _PARAMETERS, {vectors: masked_window("product", vectors) for vectors in range(1, _VECTORS + 1)}
)
_sum, _maximum = (
    switch(_PARAMETERS, {vectors: masked_window(kind, vectors) for vectors in (_POOLED_VECTORS, 1)})
    for kind in ("sum", "maximum")
)


@inner
def _products(
    x, shifts, masks, vectors, taps, values, y, bias, flags, low, high, outside
):  # fmt: skip
    for first in range(0, vectors, _VECTORS):
        start = 4 * LANES * first
        a = (
            x + start, shifts, masks + 2 * first, vectors, taps, values, y + start, bias, flags,
            low, high, outside,
        )  # fmt: skip
        _product(min(vectors - first, _VECTORS), *a)


@inner
def _pooled(
    kind, x, shifts, masks, vectors, taps, values, y, flags, low, high, outside
):  # fmt: skip
    first = 0
    while first < vectors:
        count = _POOLED_VECTORS if vectors - first >= _POOLED_VECTORS else 1
        start = 4 * LANES * first
        a = (
            x + start, shifts, masks + 2 * first, vectors, taps, values + start, y + start, 0,
            flags, low, high, outside,
        )  # fmt: skip
        if kind == MAXIMUM:
            _maximum(count, *a)
        else:
            _sum(count, *a)
        first += count


@executes(DWCONV_MASKED)
@inner
def dwconv_masked(p, f, arena, constants, index, short_index, control, thread, num_threads):
    """y[c * multiplier + m] = product, sum or maximum over the windows of x[c].

    With a scratch buffer, computes a window at every pixel of x, then copies those that the strides
    select.
    """
    base, planes = arena.ctypes.data, p[AT.batch] * p[AT.channels] * p[AT.multiplier]
    shifts = index.ctypes.data + 4 * p[AT.shifts]
    masks = short_index.ctypes.data + 2 * p[AT.masks]
    scratch = p[AT.scratch] + thread * p[AT.scratch_size]
    begin, end = take(control, planes, _TOGETHER, thread, num_threads)
    while begin < end:
        for item in range(begin, end):
            x, y, out = place(p, item, p[AT.multiplier])
            values = constants.ctypes.data + 4 * (p[AT.values] + out * p[AT.num_values])
            target = base + 4 * (scratch if p[AT.scratch_size] else y)
            if p[AT.kind] == PRODUCT:
                _products(
                    base + 4 * x, shifts, masks, p[AT.vectors], p[AT.taps], values, target,
                    constants.ctypes.data + 4 * (p[AT.bias] + out), p[AT.flags] & CLIP, f[AT.low],
                    f[AT.high],
                    f[AT.pad_value],
                )  # fmt: skip
            else:
                _pooled(
                    p[AT.kind], base + 4 * x, shifts, masks, p[AT.vectors], p[AT.taps], values,
                    target,
                    p[AT.flags] & CLIP, f[AT.low], f[AT.high], f[AT.pad_value],
                )  # fmt: skip
            if p[AT.scratch_size]:
                for i in range(p[AT.out_height]):
                    line = scratch + i * p[AT.stride_y] * p[AT.width]
                    for j in range(p[AT.out_width]):
                        arena[y + i * p[AT.out_width] + j] = arena[line + j * p[AT.stride_x]]
        begin, end = take(control, planes, _TOGETHER, thread, num_threads)
