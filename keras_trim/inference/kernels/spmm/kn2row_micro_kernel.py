"""The inner loop of kn2row: convolutions whose sums move.

`kn2row_micro_kernel(vectors)` keeps the sums of whole lines in vector registers. It goes through a
row of weights, one column of the window after another, and moves the sums by a lane in between.
"""

import functools

from llvmlite import ir
from numba import types

from keras_trim.inference.kernels.llvm import (
    AHEAD,
    FIRST,
    I32,
    I64,
    LANES,
    REGISTERS,
    RESIDUAL,
    Body,
    outlined,
)

MOST_SUMS = 16 if REGISTERS == 32 else 12  # vectors
LAST = 8  # flag: the sums are complete


@functools.cache
def kn2row_micro_kernel(vectors):
    """Makes `kernel(x, offsets, values, counts, rows, shifts, sums, y, stride, bias, residual,
    places, kept, flags, low, high)`.

    For each of `rows` rows it computes `vectors * LANES` sums, which start from the bias with the
    flag `FIRST`, otherwise from zero. For each of `shifts` sets of columns it adds

        sums[:] += sum(values[k] * x[offsets[k] :] for k in range(count))

    over the `count` columns of the set. Between two sets, it moves the sums down by one float.
    Without `FIRST` it adds the sums in memory at the end. It stores the result there or, with the
    flag `LAST`, in the output: `RESIDUAL` adds a residual, then `CLIP` clips.

    It writes whole vectors, each to its place in the output, in order, so that the next line
    overwrites the excess of a line. Of the very last vector it writes only `kept` floats.

    Addresses: `x`, float32; `offsets`, int32, and `values`, float32, set after set, row after row;
    `counts`, int32, (rows, shifts); `sums`, float32, (rows, vectors * LANES); `y`, float32, rows
    `stride` bytes apart; `residual`, laid out as y, read up to LANES floats past its end; `bias`,
    float32, (rows,); `places`, int32, (vectors,), in floats.
    """
    address, i64, f32 = types.intp, types.int64, types.float32
    operands = (
        address, address, address, address, i64, i64, address, address, i64, address, address,
        address, i64, i64, f32, f32,
    )  # fmt: skip
    return outlined(f"multiply_slide_{vectors}", operands, lambda f: _build(f, vectors))


def _build(function, vectors):
    body = Body(function)
    b = body.b
    (
        x, offsets, values, counts, rows, shifts, sums, y, stride, bias, residual, places, kept,
        flags, low, high,
    ) = function.args  # fmt: skip
    entry, numbers = b.block, range(vectors)
    zeros = ir.Constant(body.vector, [0.0] * LANES)
    moved = ir.Constant(ir.VectorType(I32, LANES), list(range(1, LANES + 1)))
    row_head, set_head, head, step, next_set, move, complete = body.blocks(
        "row", "set", "head", "step", "next_set", "move", "complete"
    )

    b.branch(row_head)
    b.position_at_end(row_head)
    pointers = [b.phi(I64) for _ in range(8)]
    row, offsets_row, values_row, counts_row, sums_row, y_row, bias_row, residual_row = pointers
    starts = (I64(0), offsets, values, counts, sums, y, bias, residual)
    for pointer, start in zip(pointers, starts, strict=True):
        pointer.add_incoming(start, entry)
    for line in (0, 64):
        body.fetch(values_row, AHEAD + line)
        body.fetch(offsets_row, AHEAD + line)
    first = body.splat(body.scalar_at(bias_row, I64(0)))
    first = b.select(body.has(flags, FIRST), first, zeros)
    b.branch(set_head)

    b.position_at_end(set_head)
    number, offsets_now, values_now = (b.phi(I64) for _ in range(3))
    for value, start in ((number, I64(0)), (offsets_now, offsets_row), (values_now, values_row)):
        value.add_incoming(start, row_head)
    begun = [b.phi(body.vector) for _ in numbers]
    for total in begun:
        total.add_incoming(first, row_head)
    count = b.sext(body.scalar_at(counts_row, number, I32), I64)
    b.branch(head)

    b.position_at_end(head)
    k = b.phi(I64)
    k.add_incoming(I64(0), set_head)
    totals = [b.phi(body.vector) for _ in numbers]
    for total, start in zip(totals, begun, strict=True):
        total.add_incoming(start, set_head)
    b.cbranch(b.icmp_signed("<", k, count), step, next_set)
    b.position_at_end(step)
    start = b.add(x, b.shl(b.sext(body.scalar_at(offsets_now, k, I32), I64), I64(2)))
    weight = body.splat(body.scalar_at(values_now, k))
    for i, total in enumerate(totals):
        added = body.multiply_add(weight, body.load(start, i * LANES * 4), total)
        total.add_incoming(added, step)
    k.add_incoming(b.add(k, I64(1)), step)
    b.branch(head)

    b.position_at_end(next_set)
    after = b.add(number, I64(1))
    offsets_after, values_after = (
        b.add(now, b.shl(count, I64(2))) for now in (offsets_now, values_now)
    )
    b.cbranch(b.icmp_signed("<", after, shifts), move, complete)
    b.position_at_end(move)
    for i, total in enumerate(begun):
        following = totals[min(i + 1, vectors - 1)]
        total.add_incoming(b.shuffle_vector(totals[i], following, moved), move)
    for value, later in (
        (number, after), (offsets_now, offsets_after), (values_now, values_after)
    ):  # fmt: skip
        value.add_incoming(later, move)
    b.branch(set_head)

    b.position_at_end(complete)
    totals = body.plus_if(
        totals, b.not_(body.has(flags, FIRST)),
        lambda: [body.load(sums_row, i * LANES * 4) for i in numbers],
    )  # fmt: skip
    keep, store, end_of_row = body.blocks("keep", "store", "end_of_row")
    b.cbranch(body.has(flags, LAST), store, keep)
    b.position_at_end(keep)
    for i, total in enumerate(totals):
        body.store(total, sums_row, i * LANES * 4)
    b.branch(end_of_row)

    b.position_at_end(store)
    where = [b.shl(b.sext(body.scalar_at(places, I64(i), I32), I64), I64(2)) for i in numbers]
    totals = body.plus_if(
        totals, body.has(flags, RESIDUAL),
        lambda: [body.load(residual_row, where[i]) for i in numbers],
    )  # fmt: skip
    *totals, last = body.clipped(totals, flags, low, high)
    for total, place in zip(totals, where[:-1], strict=True):
        body.store(total, y_row, place)
    body.store_first(last, kept, y_row, where[-1])
    b.branch(end_of_row)

    b.position_at_end(end_of_row)
    next_row = b.add(row, I64(1))
    following = (
        next_row, offsets_after, values_after, b.add(counts_row, b.shl(shifts, I64(2))),
        b.add(sums_row, I64(vectors * LANES * 4)), b.add(y_row, stride), b.add(bias_row, I64(4)),
        b.add(residual_row, stride),
    )  # fmt: skip
    for pointer, later in zip(pointers, following, strict=True):
        pointer.add_incoming(later, end_of_row)
    (end,) = body.blocks("end")
    b.cbranch(b.icmp_signed("<", next_row, rows), row_head, end)
    b.position_at_end(end)
    b.ret_void()
