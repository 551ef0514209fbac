"""Lane masks in place of padding, for windows that cross the edges of an image.

A mask per tap and vector leaves out the lanes that read outside of the image. So nothing has to be
padded, and lines of the image can be contiguous.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import types

from keras_trim.inference.kernels.llvm import I32, I64, LANES, Body, loop, outlined

MOST_MASKS = 1 << 22  # bits per instruction
_I16 = ir.IntType(16)


def masks_of_taps(height, width, offsets, lines):
    """Finds, for each tap, which lanes of the vectors of a plane read inside of the image.

    Args:
        height, width: Integers, of the image.
        offsets: Array of integers, (taps, 2). How many lines and columns from a pixel a tap reads.
        lines: Integer. Lines of the plane.

    Returns:
        `(shifts, masks)`: int64, (taps,), how many pixels from a pixel of the image a tap reads;
        uint16, (taps, vectors), lane 0 being the lowest bit.
    """
    vectors = -(-lines * width // LANES)
    y, x = np.divmod(np.arange(vectors * LANES), width)
    rows, columns = y + offsets[:, :1], x + offsets[:, 1:]
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width) & (y < lines)
    bits = is_inside.reshape(len(offsets), vectors, LANES) << np.arange(LANES)
    return offsets @ [width, 1], bits.sum(axis=2).astype(np.uint16)


def mask_at(body, masks, number):
    """Loads mask `number` of those at an address, as lanes."""
    bits = body.scalar_at(masks, number, _I16)
    if LANES < 16:
        bits = body.b.trunc(bits, ir.IntType(LANES))
    return body.b.bitcast(bits, ir.VectorType(ir.IntType(1), LANES))


@functools.cache
def pack_inside():
    """Makes `kernel(target, x, starts, count, stride, vectors, masks, taps, per_tap, tap)`: packs
    columns into one place, with zeros outside of the image.

    Addresses: `target`, where columns of `vectors` vectors are written `stride` bytes apart; `x`,
    float32, read only inside of the image; `starts`, int32, (count,), where each column begins in
    x, in floats; `masks`, uint16, `per_tap` of them for each of `taps` taps. The first column is of
    `tap`, and each further one of the next tap, cyclically.
    """

    def build(function):
        body = Body(function)
        b = body.b
        target, x, starts, count, stride, vectors, masks, taps, per_tap, tap = function.args
        entry = b.block
        head, column, done = body.blocks("columns", "column", "packed")
        b.branch(head)
        b.position_at_end(head)
        k, to, tap_now = b.phi(I64), b.phi(I64), b.phi(I64)
        b.cbranch(b.icmp_signed("<", k, count), column, done)
        b.position_at_end(column)
        offset = b.sext(body.scalar_at(starts, k, I32), I64)
        start = b.add(x, b.shl(offset, I64(2)))
        first = b.mul(tap_now, per_tap)
        i, close = loop(b, vectors, 1)
        lanes = mask_at(body, masks, b.add(first, i))
        at = b.mul(i, I64(4 * LANES))
        body.store(body.load_where(lanes, start, at), to, at)
        close()
        next_tap = b.add(tap_now, I64(1))
        next_tap = b.select(b.icmp_signed("<", next_tap, taps), next_tap, I64(0))
        for value, at_first, later in (
            (k, I64(0), b.add(k, I64(1))), (to, target, b.add(to, stride)), (tap_now, tap, next_tap)
        ):  # fmt: skip
            value.add_incoming(at_first, entry)
            value.add_incoming(later, b.block)
        b.branch(head)
        b.position_at_end(done)
        b.ret_void()

    address, i64 = types.intp, types.int64
    operands = (*(address,) * 3, *(i64,) * 3, address, *(i64,) * 3)
    return outlined("pack_inside", operands, build)


@functools.cache
def pack_lines():
    """Makes `kernel(target, x, plane, channels, line, lines, above, inside, vectors, masks)`.

    It packs lines of `channels` planes, which are `plane` bytes apart. Of each plane it writes
    `lines` lines of `vectors` vectors: `above` lines of zeros, `inside` lines of the image, which
    are `line` bytes apart there, then zeros again.

    Addresses: `target`; `x`, float32, where the first line would begin, even if it is one of zeros;
    `masks`, uint16, (vectors,), which lanes of a line are pixels. Other lanes are not read.
    """

    def build(function):
        body = Body(function)
        b = body.b
        target, x, plane, channels, line, lines, above, inside, vectors, masks = function.args
        zeros = ir.Constant(body.vector, [0.0] * LANES)
        size = b.mul(vectors, I64(4 * LANES))  # of a line, in bytes
        channel, close_channels = loop(b, channels, 1)
        source = b.add(x, b.mul(channel, plane))
        to = b.add(target, b.mul(b.mul(channel, lines), size))
        number, close_lines = loop(b, lines, 1)
        to_line = b.add(to, b.mul(number, size))
        copy, clear, done = body.blocks("copy", "clear", "line_done")
        b.cbranch(b.icmp_unsigned("<", b.sub(number, above), inside), copy, clear)
        b.position_at_end(copy)
        source_line = b.add(source, b.mul(number, line))
        vector, close = loop(b, vectors, 1)
        place, lanes = b.mul(vector, I64(4 * LANES)), mask_at(body, masks, vector)
        body.store(body.load_where(lanes, source_line, place), to_line, place)
        close()
        b.branch(done)
        b.position_at_end(clear)
        vector, close = loop(b, vectors, 1)
        body.store(zeros, to_line, b.mul(vector, I64(4 * LANES)))
        close()
        b.branch(done)
        b.position_at_end(done)
        close_lines()
        close_channels()
        b.ret_void()

    return outlined("pack_lines", (types.intp,) * 2 + (types.int64,) * 7 + (types.intp,), build)
