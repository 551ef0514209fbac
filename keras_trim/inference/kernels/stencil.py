"""Inner loops of windows that move over planes: several lines of an image at a time."""

import functools
import math

from llvmlite import ir
from numba import types

from keras_trim.inference.kernels.vector import (
    F32,
    I32,
    I64,
    LANES,
    Body,
    first_lanes,
    outlined,
)


@functools.cache
def stencil(kind, height, width, stride_y, stride_x, lines):
    """Makes `kernel(x, line, plane, y, y_line)`: maxima, or sums, of windows.

    It computes a vector of pixels of each of `lines` lines, from a padded input that is taken apart
    by the strides (`padding.py`):

        y[l, :] = maximum or sum of x[phase(i, j), l + i // stride_y, j // stride_x :]

    A vector of the input is loaded once and serves all lines that need it.

    Addresses: `x`, float32, lines `line` and phases `plane` bytes apart; `y`, float32, lines
    `y_line` bytes apart.
    """
    name = f"stencil_{kind}_{height}x{width}_{stride_y}x{stride_x}_{lines}"
    operands = (types.intp, types.int64, types.int64, types.intp, types.int64)
    return outlined(
        name,
        operands,
        lambda f: _build_stencil(f, kind, height, width, stride_y, stride_x, lines),
    )


def _build_stencil(function, kind, height, width, stride_y, stride_x, lines):
    body = Body(function)
    b = body.b
    x, line, plane, y, y_line = function.args
    totals = [None] * lines
    phases_x = min(stride_x, width)
    phases_y = min(stride_y, height)
    for phase_y in range(phases_y):
        taps_y = range(phase_y, height, stride_y)
        for input_line in range(lines + len(taps_y) - 1):
            for j in range(width):
                phase = phase_y * phases_x + j % stride_x
                where = b.add(x, b.mul(line, I64(input_line)))
                where = b.add(where, b.mul(plane, I64(phase)))
                loaded = body.load(where, 4 * (j // stride_x))
                for i in taps_y:
                    out = input_line - i // stride_y
                    if 0 <= out < lines:
                        totals[out] = body.joined(kind, totals[out], loaded)
    for out, total in enumerate(totals):
        body.store(total, y, b.mul(y_line, I64(out)))
    b.ret_void()


@functools.cache
def window(kind):
    """Makes `kernel(x, offsets, count, y)`: a vector of the maxima, or sums, of windows.

    Addresses: `x`, float32; `offsets`, int32, (count,), where each pixel of a window is, in floats;
    `y`, float32.
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
    """Makes `kernel(x, pixels, y)`: the maximum, or sum, of a plane that has one pixel or more.

    Addresses: `x`, float32, in whole vectors; `y`, one float32.
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
        half = LANES // 2
        while half:
            lanes = ir.Constant(ir.VectorType(I32, LANES), [i ^ half for i in range(LANES)])
            joined = body.joined(kind, joined, b.shuffle_vector(joined, joined, lanes))
            half //= 2
        b.store(b.extract_element(joined, I32(0)), b.inttoptr(y, F32.as_pointer()))
        b.ret_void()

    return outlined(f"plane_{kind}", (types.intp, types.int64, types.intp), build)
