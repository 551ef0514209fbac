"""Inner loops that reduce the pixels of a window, or of a plane, to one number."""

import functools
import math

from llvmlite import ir
from numba import types

from keras_trim.inference.kernels.llvm import (
    F32,
    I32,
    I64,
    LANES,
    Body,
    first_lanes,
    outlined,
)


@functools.cache
def window(kind):
    """Makes `kernel(x, offsets, count, y)`: maxima or sums of one vector of windows.

    Addresses: `x`, float32; `offsets`, int32, (count,), of the pixels of a window, in floats; `y`,
    float32.
    """

    def build(function):
        body = Body(function)
        b = body.b
        x, offsets, count, y = function.args
        entry = b.block
        head, step, done = body.blocks("head", "step", "done")

        def load(k):
            offset = b.sext(body.scalar_at(offsets, k, I32), I64)
            return body.load(b.add(x, b.shl(offset, I64(2))))

        first = load(I64(0))
        b.branch(head)
        b.position_at_end(head)
        k, total = b.phi(I64), b.phi(body.vector)
        k.add_incoming(I64(1), entry)
        total.add_incoming(first, entry)
        b.cbranch(b.icmp_signed("<", k, count), step, done)
        b.position_at_end(step)
        total.add_incoming(body.joined(kind, total, load(k)), step)
        k.add_incoming(b.add(k, I64(1)), step)
        b.branch(head)
        b.position_at_end(done)
        body.store(total, y)
        b.ret_void()

    operands = (types.intp, types.intp, types.int64, types.intp)
    return outlined(f"window_{kind}", operands, build)


@functools.cache
def plane_total(kind):
    """Makes `kernel(x, pixels, y)`: the maximum or sum of a plane of at least one pixel.

    Addresses: `x`, float32, read in whole vectors; `y`, one float32.
    """
    neutral = 0.0 if kind == "sum" else -math.inf

    def build(function):
        body = Body(function)
        b = body.b
        x, pixels, y = function.args
        others = ir.Constant(body.vector, [neutral] * LANES)
        entry = b.block
        head, done = body.blocks("head", "done")
        b.branch(head)
        b.position_at_end(head)
        at, total = b.phi(I64), b.phi(body.vector)
        at.add_incoming(I64(0), entry)
        total.add_incoming(others, entry)
        is_inside = first_lanes(b, b.sub(pixels, at))
        loaded = b.select(is_inside, body.load(x, b.shl(at, I64(2))), others)
        joined = body.joined(kind, total, loaded)
        following = b.add(at, I64(LANES))
        at.add_incoming(following, head)
        total.add_incoming(joined, head)
        b.cbranch(b.icmp_signed("<", following, pixels), head, done)
        b.position_at_end(done)
        b.store(body.reduced(kind, joined), b.inttoptr(y, F32.as_pointer()))
        b.ret_void()

    return outlined(f"plane_{kind}", (types.intp, types.int64, types.intp), build)
