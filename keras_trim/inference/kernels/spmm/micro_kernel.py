"""The inner loop of SpMM: weights times many activations.

`spmm_micro_kernel(rows, vectors)` keeps `rows * vectors` sums in vector registers while it goes
through the columns of a group of rows. So it touches memory only for a weight, its offset, and the
activations it multiplies. With one row it multiplies a sparse row; with all columns present it is a
dense, register-tiled product.
"""

import functools

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

WIDEST = 8  # most vectors of activations in one pass over a sparse row
ROW_GROUPS = (6, 4, 2)  # rows that share their columns, most first; other rows go one by one
WIDEST_GROUP = 4 if REGISTERS == 32 else 2  # most vectors of activations for such a group
_FEW = 32  # columns; with fewer, most of the time goes into loading y into the first-level cache


@functools.cache
def spmm_micro_kernel(rows, vectors):
    """Makes `kernel(x, offsets, values, table, groups, sums, sums_stride, y, stride, bias,
    residual, flags, low, high)`.

    For each of `groups` groups of `rows` rows, and for `vectors * LANES` activations, it computes

        y[r, :] = clip(start[r, :] + sum(values[k, r] * x[offsets[k] :] for k in range(count)))

    over the `count` columns of the group. `start` is `bias[r]` with the flag `FIRST`, otherwise
    `sums[r, :]`.

    Addresses: `x`, float32, the first activation; `offsets`, int32, in floats; `values`, float32,
    (columns, rows); `table`, int32, (groups, 3), whose second column is `count`; `sums`, float32,
    rows `sums_stride` bytes apart; `y`, float32, rows `stride` bytes apart, which may be the same
    place as `sums`; `bias`, float32; `residual`, laid out as y, added with the flag `RESIDUAL`.
    Columns, values and rows of a group follow those of the previous group. The flag `CLIP` clips to
    the float32 `low` and `high`; NaN stays NaN, as in Keras.
    """
    address, i64, f32 = types.intp, types.int64, types.float32
    operands = (
        address, address, address, address, i64, address, i64, address, i64, address, address, i64,
        f32, f32,
    )  # fmt: skip
    name = f"multiply_add_{rows}x{vectors}"
    return outlined(name, operands, lambda f: _build_multiply_add(f, rows, vectors))


def _build_multiply_add(function, rows, vectors):
    body = Body(function)
    b = body.b
    (
        x, offsets, values, table, groups, sums_at, sums_stride, y, stride, bias, residual, flags,
        low, high,
    ) = function.args  # fmt: skip
    entry = b.block
    tile = [(r, i * LANES * 4) for r in range(rows) for i in range(vectors)]
    group_stride, sums_step = (b.mul(step, I64(rows)) for step in (stride, sums_stride))
    is_apart = b.icmp_signed("!=", y, sums_at)

    (group_head,) = body.blocks("group")
    b.branch(group_head)
    b.position_at_end(group_head)
    pointers = [b.phi(I64) for _ in range(8)]
    (
        group, offsets_now, values_now, table_now, sums_now, y_now, bias_now, residual_now,
    ) = pointers  # fmt: skip
    starts = (I64(0), offsets, values, table, sums_at, y, bias, residual)
    for pointer, start in zip(pointers, starts, strict=True):
        pointer.add_incoming(start, entry)
    count = b.sext(body.scalar_at(table_now, I64(1), I32), I64)
    from_bias, from_sums, head, step, done = body.blocks(
        "from_bias", "from_sums", "head", "step", "done"
    )

    if rows == 1:  # prefetch 32 columns, about as many as a row has
        for line in (0, 64):
            body.fetch(values_now, AHEAD + line)
            body.fetch(offsets_now, AHEAD + line)

    def row(base, r, apart=stride):
        return b.add(base, b.mul(apart, I64(r))) if r else base

    # If y is not where the sums are, its lines may not be in the cache.
    fetch, fetched = body.blocks("fetch", "fetched")
    b.cbranch(b.and_(is_apart, b.icmp_signed("<", count, I64(_FEW))), fetch, fetched)
    b.position_at_end(fetch)
    for r, i in tile:
        body.fetch(row(y_now, r), i, to_write=True)
    b.branch(fetched)
    b.position_at_end(fetched)
    b.cbranch(body.has(flags, FIRST), from_bias, from_sums)
    b.position_at_end(from_bias)
    biases = [body.splat(body.scalar_at(bias_now, I64(r))) for r in range(rows)]
    b.branch(head)
    b.position_at_end(from_sums)
    loaded = [body.load(row(sums_now, r, sums_stride), i) for r, i in tile]
    b.branch(head)

    b.position_at_end(head)
    k = b.phi(I64)
    k.add_incoming(I64(0), from_bias)
    k.add_incoming(I64(0), from_sums)
    sums = body.merge(from_bias, [biases[r] for r, _ in tile], from_sums, loaded)
    b.cbranch(b.icmp_signed("<", k, count), step, done)

    b.position_at_end(step)
    offset = b.sext(body.scalar_at(offsets_now, k, I32), I64)
    start = b.add(x, b.shl(offset, I64(2)))
    inputs = [body.load(start, i * LANES * 4) for i in range(vectors)]
    first_weight = b.mul(k, I64(rows)) if rows > 1 else k
    weights = [
        body.splat(body.scalar_at(values_now, b.add(first_weight, I64(r)) if r else first_weight))
        for r in range(rows)
    ]
    if rows > 1:
        body.fetch(values_now, b.add(b.shl(first_weight, I64(2)), I64(AHEAD)))
    for total, (r, i) in zip(sums, tile, strict=True):
        total.add_incoming(body.multiply_add(weights[r], inputs[i // (LANES * 4)], total), step)
    k.add_incoming(b.add(k, I64(1)), step)
    b.branch(head)

    b.position_at_end(done)
    sums = body.plus_if(
        sums, body.has(flags, RESIDUAL),
        lambda: [body.load(row(residual_now, r), i) for r, i in tile],
    )  # fmt: skip
    for total, (r, i) in zip(body.clipped(sums, flags, low, high), tile, strict=True):
        body.store(total, row(y_now, r), i)

    steps = (
        I64(1), b.shl(count, I64(2)), b.mul(count, I64(4 * rows)), I64(12), sums_step, group_stride,
        I64(4 * rows), group_stride,
    )  # fmt: skip
    for pointer, step_size in zip(pointers, steps, strict=True):
        pointer.add_incoming(b.add(pointer, step_size), b.block)
    (end,) = body.blocks("end")
    b.cbranch(b.icmp_signed("<", group.incomings[1][0], groups), group_head, end)
    b.position_at_end(end)
    b.ret_void()
