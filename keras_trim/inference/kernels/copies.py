"""Copies by whole vectors: padded, packed, taken apart, transposed."""

import functools

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from keras_trim.inference.kernels.vector import (
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
def copy_padded(typing_context, target, source, count, padded, value):
    """Copies `count` floats between addresses, then `value` up to `padded` floats.

    It reads and writes whole vectors, up to LANES - 1 floats more.
    """
    signature = types.void(types.intp, types.intp, types.int64, types.int64, types.float32)

    def codegen(context, builder, signature, arguments):
        b = builder
        target, source, count, padded, value = arguments
        values = splat(b, value)
        i, close = loop(b, padded)
        loaded = b.load(_vector_at(b, source, i), align=4)
        kept = b.select(first_lanes(b, b.sub(count, i)), loaded, values)
        b.store(kept, _vector_at(b, target, i), align=4)
        close()
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def fill_vectors(typing_context, target, count, value):
    """Sets `count` floats at an address, and on to the next multiple of LANES."""
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
def pack_columns(vectors):
    """Makes `kernel(target, x, offsets, count, stride)`: copies columns to one place.

    Addresses: `target`, where columns of `vectors * LANES` floats are written `stride` bytes apart;
    `x`, float32; `offsets`, int32, (count,), where each column begins in x, in floats.
    """

    def build(function):
        body = Body(function)
        b = body.b
        target, x, offsets, count, stride = function.args
        entry = b.block
        head, step, done = body.blocks("head", "step", "done")
        b.branch(head)
        b.position_at_end(head)
        k, to = b.phi(I64), b.phi(I64)
        k.add_incoming(I64(0), entry)
        to.add_incoming(target, entry)
        b.cbranch(b.icmp_signed("<", k, count), step, done)
        b.position_at_end(step)
        offset = b.sext(body.scalar_at(offsets, k, I32), I64)
        start = b.add(x, b.shl(offset, I64(2)))
        for i in range(vectors):
            body.store(body.load(start, i * LANES * 4), to, i * LANES * 4)
        k.add_incoming(b.add(k, I64(1)), step)
        to.add_incoming(b.add(to, stride), step)
        b.branch(head)
        b.position_at_end(done)
        b.ret_void()

    operands = (types.intp, types.intp, types.intp, types.int64, types.int64)
    return outlined(f"pack_columns_{vectors}", operands, build)


@intrinsic
def copy_floats(typing_context, target, source, count):
    """Copies `count` floats between two addresses; reads up to LANES - 1 behind them."""
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


@intrinsic
def deinterleave_padded(typing_context, even, odd, source, even_count, odd_count, padded, value):
    """Copies floats 0, 2, 4 ... of a source to `even`, 1, 3, 5 ... to `odd`, `value` behind them.

    Of each, `padded` floats are written, and up to LANES - 1 more. If both have the same place, the
    even ones stay.
    """
    address, i64 = types.intp, types.int64
    signature = types.void(address, address, address, i64, i64, i64, types.float32)

    def codegen(context, builder, signature, arguments):
        b = builder
        even, odd, source, even_count, odd_count, padded, value = arguments
        values = splat(b, value)
        i, close = loop(b, padded)
        first = b.load(_vector_at(b, source, b.shl(i, I64(1))), align=4)
        second = b.load(_vector_at(b, source, b.add(b.shl(i, I64(1)), I64(LANES))), align=4)
        for target, count, start in ((odd, odd_count, 1), (even, even_count, 0)):
            picked = ir.Constant(ir.VectorType(I32, LANES), list(range(start, 2 * LANES, 2)))
            kept = b.select(
                first_lanes(b, b.sub(count, i)),
                b.shuffle_vector(first, second, picked),
                values,
            )
            b.store(kept, _vector_at(b, target, i), align=4)
        close()
        return context.get_dummy_value()

    return signature, codegen


@functools.cache
def transpose_tile():
    """Makes `kernel(y, x, y_stride, x_stride)`: LANES rows of LANES floats, rows become columns.

    Addresses; strides are bytes from one row to the next.
    """
    address, i64 = types.intp, types.int64
    return outlined("transpose_tile", (address, address, i64, i64), _build_transpose_tile)


def _build_transpose_tile(function):
    body = Body(function)
    b = body.b
    y, x, y_stride, x_stride = function.args
    rows = [body.load(x, b.mul(x_stride, I64(i))) for i in range(LANES)]
    # The two halves off the diagonal change places, then the same within each quarter, and so on.
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
