"""Inner loops of SpMV (CSR) and GEMV: weights times one row of activations.

Both take addresses and compute `y[o] = clip(weights[o, :] . x + bias[o])`. They clip with the flag
`CLIP`.
"""

import functools

from llvmlite import ir
from numba import types
from numba.core import cgutils

from keras_trim.inference.kernels.llvm import AHEAD, CLIP, F32, I32, I64, LANES, Body, outlined

_I16 = ir.IntType(16)
_QUAD = 4  # lanes of a small vector
_SUMS = 4  # independent vectors of sums, so that no addition waits for the previous one
DENSE_VECTORS = (1, 2, 4, 8)  # vectors of outputs that `dense_dots` can sum at once


@functools.cache
def csr_dots():
    """Makes `kernel(x, columns, values, starts, rows, y, bias, flags, low, high)`.

    The weights are in CSR: row o has `values[starts[o] : starts[o + 1]]`, and `columns` (uint16)
    are their places in x. Columns are read four at a time, because loads are the bottleneck: one
    load per activation, and half a load per weight and its column.
    """
    address, i64, f32 = types.intp, types.int64, types.float32
    operands = (address,) * 4 + (i64, address, address, i64, f32, f32)
    return outlined("csr_dots", operands, _build_sparse_dots)


def _build_sparse_dots(function):
    body = Body(function)
    b = body.b
    x, columns, values, starts, rows, y, bias, flags, low, high = function.args
    quad = ir.VectorType(F32, _QUAD)
    fma = _intrinsic(function, f"llvm.fma.v{_QUAD}f32", quad, [quad] * 3)
    scalar_fma = _intrinsic(function, "llvm.fma.f32", F32, [F32] * 3)
    reduce = _intrinsic(function, f"llvm.vector.reduce.fadd.v{_QUAD}f32", F32, [F32, quad])
    inputs = b.inttoptr(x, F32.as_pointer())
    shorts, floats = (
        b.inttoptr(columns, _I16.as_pointer()),
        b.inttoptr(values, F32.as_pointer()),
    )
    first = b.zext(body.scalar_at(starts, I64(0), I32), I64)
    entry = b.block
    row_head, head, step, reduced, tail, tail_step, row_end, end = body.blocks(
        "row", "head", "step", "reduced", "tail", "tail_step", "row_end", "end"
    )
    b.cbranch(b.icmp_signed("<", I64(0), rows), row_head, end)

    b.position_at_end(row_head)
    row, begin = b.phi(I64), b.phi(I64)
    stop = b.zext(body.scalar_at(starts, b.add(row, I64(1)), I32), I64)
    stride = _QUAD * _SUMS
    whole = b.add(begin, b.and_(b.sub(stop, begin), I64(-stride)))
    b.branch(head)

    b.position_at_end(head)
    k = b.phi(I64)
    sums = [b.phi(quad) for _ in range(_SUMS)]
    b.cbranch(b.icmp_signed("<", k, whole), step, reduced)

    b.position_at_end(step)
    body.fetch(values, b.add(b.shl(k, I64(2)), I64(AHEAD)))
    body.fetch(columns, b.add(b.shl(k, I64(1)), I64(AHEAD // 2)))
    for i, total in enumerate(sums):
        at = b.add(k, I64(i * _QUAD))
        weights = b.load(b.bitcast(b.gep(floats, [at]), quad.as_pointer()), align=4)
        # Little-endian, like every processor that Numba compiles for.
        four = b.load(b.bitcast(b.gep(shorts, [at]), I64.as_pointer()), align=2)
        gathered = ir.Constant(quad, ir.Undefined)
        for lane in range(_QUAD):
            column = b.and_(b.lshr(four, I64(16 * lane)), I64(0xFFFF))
            gathered = b.insert_element(gathered, b.load(b.gep(inputs, [column])), I32(lane))
        total.add_incoming(b.call(fma, [weights, gathered, total]), step)
        total.add_incoming(ir.Constant(quad, [0.0] * _QUAD), row_head)
    k.add_incoming(begin, row_head)
    k.add_incoming(b.add(k, I64(stride)), step)
    b.branch(head)

    b.position_at_end(reduced)
    while len(sums) > 1:
        sums = [b.fadd(one, other) for one, other in zip(sums[::2], sums[1::2], strict=True)]
    start = body.scalar_at(bias, row)
    of_quads = b.call(reduce, [start, sums[0]], fastmath=("reassoc",))
    b.branch(tail)
    b.position_at_end(tail)
    j, total = b.phi(I64), b.phi(F32)
    j.add_incoming(k, reduced)
    total.add_incoming(of_quads, reduced)
    b.cbranch(b.icmp_signed("<", j, stop), tail_step, row_end)
    b.position_at_end(tail_step)
    column = b.zext(b.load(b.gep(shorts, [j])), I64)
    product = [b.load(b.gep(floats, [j])), b.load(b.gep(inputs, [column])), total]
    total.add_incoming(b.call(scalar_fma, product), tail_step)
    j.add_incoming(b.add(j, I64(1)), tail_step)
    b.branch(tail)

    b.position_at_end(row_end)
    is_clipped = body.has(flags, CLIP)
    for beyond, bound in (("<", low), (">", high)):
        is_beyond = b.and_(is_clipped, b.fcmp_ordered(beyond, total, bound))
        total = b.select(is_beyond, bound, total)
    b.store(total, b.gep(b.inttoptr(y, F32.as_pointer()), [row]))
    next_row = b.add(row, I64(1))
    for value, at_first, later in ((row, I64(0), next_row), (begin, first, stop)):
        value.add_incoming(at_first, entry)
        value.add_incoming(later, row_end)
    b.cbranch(b.icmp_signed("<", next_row, rows), row_head, end)
    b.position_at_end(end)
    b.ret_void()


@functools.cache
def dense_dots(vectors):
    """Makes `kernel(x, weights, inputs, y, left, bias, flags, low, high)`.

    It sums `vectors * LANES` outputs at once. For each of the `inputs`, their weights are
    contiguous, so memory is read as one stream. Only the first `left` outputs are written.
    """
    address, i64, f32 = types.intp, types.int64, types.float32
    operands = (address, address, i64, address, i64, address, i64, f32, f32)
    return outlined(f"dense_dots_{vectors}", operands, lambda f: _build_dense_dots(f, vectors))


def _build_dense_dots(function, vectors):
    body = Body(function)
    b = body.b
    x, weights, inputs, y, left, bias, flags, low, high = function.args
    starts = [body.load(bias, 4 * LANES * i) for i in range(vectors)]
    entry = b.block
    head, step, done = body.blocks("head", "step", "done")
    b.branch(head)
    b.position_at_end(head)
    k = b.phi(I64)
    k.add_incoming(I64(0), entry)
    sums = [b.phi(body.vector) for _ in range(vectors)]
    b.cbranch(b.icmp_signed("<", k, inputs), step, done)
    b.position_at_end(step)
    factor = body.splat(body.scalar_at(x, k))
    where = b.add(weights, b.mul(k, I64(4 * LANES * vectors)))
    for i, (total, start) in enumerate(zip(sums, starts, strict=True)):
        total.add_incoming(start, entry)
        product = body.multiply_add(factor, body.load(where, 4 * LANES * i), total)
        total.add_incoming(product, step)
    k.add_incoming(b.add(k, I64(1)), step)
    b.branch(head)
    b.position_at_end(done)
    sums = body.clipped(sums, flags, low, high)
    for i, total in enumerate(sums):
        body.store_first(total, b.sub(left, I64(LANES * i)), y, 4 * LANES * i)
    b.ret_void()


def _intrinsic(function, name, result, operands):
    kind = ir.FunctionType(result, operands)
    return cgutils.get_or_insert_function(function.module, kind, name)
