"""Copies by whole vectors: padding, packing, splitting, transposing."""

import functools

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from keras_trim.inference.kernels.llvm import (
    F32,
    I32,
    I64,
    LANES,
    Body,
    first_lanes,
    loop,
    outlined,
    splat,
    store_first,
)


def _vector_at(b, base, index):
    vector = ir.VectorType(F32, LANES)
    return b.inttoptr(b.add(base, b.shl(index, I64(2))), vector.as_pointer())


@intrinsic
def fill_vectors(typing_context, target, count, value):
    """Sets `count` floats at an address, rounded up to a multiple of LANES."""
    signature = types.void(types.intp, types.int64, types.float32)

    def codegen(context, builder, signature, arguments):
        b = builder
        target, count, value = arguments
        values = splat(b, value)
        i, close = loop(b, count)
        b.store(values, _vector_at(b, target, i), align=4)
        close()
        return context.get_dummy_value()

    return signature, codegen


@functools.cache
def pack():
    """Makes `kernel(target, x, starts, count, stride, vectors)`: packs columns into one place.

    Addresses: `target`, where columns of `vectors` vectors are written `stride` bytes apart; `x`,
    float32; `starts`, int32, (count,), where each column begins in x, in floats.
    """

    def build(function):
        body = Body(function)
        b = body.b
        target, x, starts, count, stride, vectors = function.args
        k, close = loop(b, count, 1)
        start = b.sext(body.scalar_at(starts, k, I32), I64)
        start, to = b.add(x, b.shl(start, I64(2))), b.add(target, b.mul(k, stride))
        i, close_column = loop(b, vectors, 1)
        at = b.mul(i, I64(4 * LANES))
        body.store(body.load(start, at), to, at)
        close_column()
        close()
        b.ret_void()

    return outlined("pack", (types.intp,) * 3 + (types.int64,) * 3, build)


@intrinsic
def copy_floats(typing_context, target, source, count):
    """Copies `count` floats between two addresses; reads up to LANES - 1 floats past them."""
    signature = types.void(types.intp, types.intp, types.int64)

    def codegen(context, builder, signature, arguments):
        b = builder
        target, source, count = arguments
        whole = b.and_(count, I64(-LANES))
        i, close = loop(b, whole)
        b.store(b.load(_vector_at(b, source, i), align=4), _vector_at(b, target, i), align=4)
        close()
        with b.if_then(b.icmp_signed("<", whole, count)):
            tail = b.load(_vector_at(b, source, whole), align=4)
            store_first(b, tail, b.sub(count, whole), _vector_at(b, target, whole))
        return context.get_dummy_value()

    return signature, codegen


@functools.cache
def copy_checked():
    """Makes `kernel(target, source, count, check)`: copies `count` floats, reads no others, and
    sets `check` to NaN if one of them is not finite, else to zero.

    Addresses: `target`, `source`, `check`, one float32.
    """

    def build(function):
        body = Body(function)
        b = body.b
        target, source, count, check = function.args
        zeros = ir.Constant(body.vector, [0.0] * LANES)
        whole = b.and_(count, I64(-LANES))
        entry = b.block
        head, step, done = body.blocks("head", "step", "done")
        b.branch(head)
        b.position_at_end(head)
        i, total = b.phi(I64), b.phi(body.vector)
        i.add_incoming(I64(0), entry)
        total.add_incoming(zeros, entry)
        b.cbranch(b.icmp_signed("<", i, whole), step, done)
        b.position_at_end(step)
        at = b.shl(i, I64(2))
        values = body.load(source, at)
        body.store(values, target, at)
        total.add_incoming(body.multiply_add(values, zeros, total), step)
        i.add_incoming(b.add(i, I64(LANES)), step)
        b.branch(head)
        b.position_at_end(done)
        left, at = b.sub(count, whole), b.shl(whole, I64(2))
        values = body.load_where(first_lanes(b, left), source, at)
        body.store_first(values, left, target, at)
        total = body.multiply_add(values, zeros, total)
        b.store(body.reduced("sum", total), b.inttoptr(check, F32.as_pointer()))
        b.ret_void()

    address = types.intp
    return outlined("copy_checked", (address, address, types.int64, address), build)


@functools.cache
def split_pixels(channels, stride):
    """Makes `kernel(even, odd, distance, source, even_count, odd_count, padded, value)`.

    It splits a row of pixels, of `channels` floats each, into one row per channel. With a `stride`
    of 2, pixels 0, 2, 4 ... go to `even` and 1, 3, 5 ... to `odd`; otherwise all go to `even`. Rows
    continue with `value` after `even_count` and `odd_count` pixels.

    It writes `padded` floats of each row, and up to LANES - 1 more, and reads as many pixels. If
    `even` and `odd` are the same place, the even pixels win.

    Addresses: `even` and `odd`, of the first channel, with the other channels `distance` bytes
    apart; `source`, float32.
    """
    parts = channels * stride

    def build(function):
        body = Body(function)
        b = body.b
        even, odd, distance, source, even_count, odd_count, padded, value = function.args
        values = body.splat(value)
        i, close = loop(b, padded)
        start = b.add(source, b.mul(i, I64(4 * parts)))
        vectors = [body.load(start, 4 * LANES * k) for k in range(parts)]
        at = b.shl(i, I64(2))
        targets = ((even, even_count), (odd, odd_count))
        for phase in reversed(range(stride)):
            target, count = targets[phase]
            is_pixel = first_lanes(b, b.sub(count, i))
            for channel in range(channels):
                picked = _every(b, vectors, channels * phase + channel)
                where = b.add(target, b.mul(distance, I64(channel)))
                body.store(b.select(is_pixel, picked, values), where, at)
        close()
        b.ret_void()

    address, i64 = types.intp, types.int64
    operands = (address, address, i64, address, i64, i64, i64, types.float32)
    return outlined(f"split_pixels_{channels}_{stride}", operands, build)


def _every(b, vectors, first):
    """Returns one vector of every `len(vectors)`-th float of the vectors, starting at `first`."""
    result = None
    for k in range(0, len(vectors), 2):
        pair = vectors[k], vectors[min(k + 1, len(vectors) - 1)]
        lanes = [first + len(vectors) * lane - k * LANES for lane in range(LANES)]
        is_here = [0 <= lane < 2 * LANES for lane in lanes]
        # Lanes that this pair does not have are arbitrary: another pair supplies them.
        picked = ir.Constant(ir.VectorType(I32, LANES), [lane % (2 * LANES) for lane in lanes])
        here = b.shuffle_vector(*pair, picked)
        mask = ir.Constant(ir.VectorType(ir.IntType(1), LANES), is_here)
        result = here if result is None else b.select(mask, here, result)
    return result


@functools.cache
def transpose_tile():
    """Makes `kernel(y, x, y_stride, x_stride)`: transposes LANES rows of LANES floats.

    Addresses: `y`, `x`, float32. Strides are bytes from one row to the next.
    """
    address, i64 = types.intp, types.int64
    return outlined("transpose_tile", (address, address, i64, i64), _build_transpose_tile)


def _build_transpose_tile(function):
    body = Body(function)
    b = body.b
    y, x, y_stride, x_stride = function.args
    rows = [body.load(x, b.mul(x_stride, I64(i))) for i in range(LANES)]
    # Swap the two quarters off the diagonal, then do the same within each quarter, and so on.
    distance = LANES // 2
    while distance:
        first = [i if not i & distance else LANES + i - distance for i in range(LANES)]
        second = [i + distance if not i & distance else LANES + i for i in range(LANES)]
        for i in range(LANES):
            if not i & distance:
                pair = rows[i], rows[i + distance]
                for place, lanes in ((i, first), (i + distance, second)):
                    picked = ir.Constant(ir.VectorType(I32, LANES), lanes)
                    rows[place] = b.shuffle_vector(*pair, picked)
        distance //= 2
    for i, row in enumerate(rows):
        body.store(row, y, b.mul(y_stride, I64(i)))
    b.ret_void()
