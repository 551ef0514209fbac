"""SpMV with sliced ELLPACK (SELL) weights: activations come from registers, not from single loads.

`csr.csr_dots` is limited by loads: one per weight. AVX-512 picks 16 floats out of two registers
with one instruction. So here 16 rows advance together, one weight of each at a time: a *slot*. A
slot names two vectors of 16 activations, and all of its weights multiply activations from these
two. A row with no weight left there idles, so the choice of the next two vectors matters.
`schedule` chooses greedily, and fills 74% of the lanes at 90% sparsity.

The layout is sliced ELLPACK (Monakov et al. 2010, "Automatically tuning sparse matrix-vector
multiplication for GPU architectures", section 3), but the order of weights within a row is free.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from keras_trim.inference.kernels.compiled import compiled, inner
from keras_trim.inference.kernels.llvm import AHEAD, I32, I64, LANES, Body, outlined

_I8 = ir.IntType(8)
ROWS = 16
IS_AVAILABLE = LANES == ROWS  # with AVX-512
_UNROLL = 2  # slots at once, so that no addition waits for the previous one


@functools.cache
def sell_dots():
    """Makes `kernel(x, vectors, lanes, values, starts, groups, y, bias, left, flags, low, high)`.

    It computes `y[o] = clip(weights[o, :] . x + bias[o])` for `groups` groups of 16 rows, clips
    with the flag `CLIP`, and writes only the first `left` rows. Group g has the slots
    `starts[g] : starts[g + 1]` (int32), always an even number. Slot s names two vectors of x,
    `vectors[s]` (uint16). Its weights are `values[s]`, (16,), float32, and `lanes[s]`, (16,),
    uint8, are their places within those 32 floats.
    """
    address, i64, f32 = types.intp, types.int64, types.float32
    operands = (address,) * 5 + (i64, address, address, i64, i64, f32, f32)
    return outlined("sell_dots", operands, _build)


def _build(function):
    body = Body(function)
    b = body.b
    x, vectors, lanes, values, starts, groups, y, bias, left, flags, low, high = function.args
    places = ir.VectorType(I32, ROWS)
    pick = cgutils.get_or_insert_function(
        function.module,
        ir.FunctionType(body.vector, [body.vector, places, body.vector]),
        "llvm.x86.avx512.vpermi2var.ps.512",
    )
    entry = b.block
    head, step, done, end = body.blocks("group", "step", "done", "end")
    first = b.zext(body.scalar_at(starts, I64(0), I32), I64)
    b.cbranch(b.icmp_signed("<", I64(0), groups), head, end)

    b.position_at_end(head)
    group, begin = b.phi(I64), b.phi(I64)
    next_group = b.add(group, I64(1))
    stop = b.zext(body.scalar_at(starts, next_group, I32), I64)
    offset = b.mul(group, I64(4 * ROWS))
    start = body.load(bias, offset)
    zeros = ir.Constant(body.vector, [0.0] * ROWS)
    b.cbranch(b.icmp_signed("<", begin, stop), step, done)

    b.position_at_end(step)
    slot = b.phi(I64)
    slot.add_incoming(begin, head)
    sums = [b.phi(body.vector) for _ in range(_UNROLL)]
    products = []
    for i, total in enumerate(sums):
        now = b.add(slot, I64(i))
        pair = b.zext(body.scalar_at(vectors, now, I32), I64)
        one, other = (
            body.load(x, b.shl(vector, I64(6)))
            for vector in (b.and_(pair, I64(0xFFFF)), b.lshr(pair, I64(16)))
        )
        where = b.inttoptr(b.add(lanes, b.shl(now, I64(4))), ir.VectorType(_I8, ROWS).as_pointer())
        place = b.zext(b.load(where, align=16), places)
        weights = body.load(values, b.shl(now, I64(6)))
        body.fetch(values, b.add(b.shl(now, I64(6)), I64(AHEAD)))
        products.append(body.multiply_add(weights, b.call(pick, [one, place, other]), total))
    body.fetch(lanes, b.add(b.shl(slot, I64(4)), I64(AHEAD // 4)))
    for total, product, at_first in zip(sums, products, (start, zeros), strict=True):
        total.add_incoming(at_first, head)
        total.add_incoming(product, step)
    next_slot = b.add(slot, I64(_UNROLL))
    slot.add_incoming(next_slot, step)
    b.cbranch(b.icmp_signed("<", next_slot, stop), step, done)

    b.position_at_end(done)
    totals = []
    for at_first, product in zip((start, zeros), products, strict=True):
        total = b.phi(body.vector)
        total.add_incoming(at_first, head)
        total.add_incoming(product, step)
        totals.append(total)
    (result,) = body.clipped([b.fadd(*totals)], flags, low, high)
    body.store_first(result, b.sub(left, b.mul(group, I64(ROWS))), b.add(y, offset))
    for value, at_first, later in ((group, I64(0), next_group), (begin, first, stop)):
        value.add_incoming(at_first, entry)
        value.add_incoming(later, b.block)
    b.cbranch(b.icmp_signed("<", next_group, groups), head, end)
    b.position_at_end(end)
    b.ret_void()


@inner
def _bits(mask):
    count = 0
    while mask:
        mask &= mask - 1
        count += 1
    return count


@compiled
def schedule(starts, columns, values, num_vectors):
    """Packs CSR rows into slots.

    Args:
        starts: Array of int64, (rows + 1,), rows being a multiple of 16.
        columns: Array of int64, (non-zeros,), ascending within a row.
        values: Array of float32, (non-zeros,).
        num_vectors: Integer. Vectors of 16 activations.

    Returns:
        `(group_starts, vectors, lanes, values)`, as `sell_dots` reads them.
    """
    groups = (starts.size - 1) // ROWS
    group_starts = np.zeros(groups + 1, np.int32)
    size = 2 * (values.size // ROWS + groups)
    vectors = np.zeros((size, 2), np.uint16)
    lanes = np.zeros((size, ROWS), np.uint8)
    packed = np.zeros((size, ROWS), np.float32)
    # For each row and vector, where its weights begin and how many are left.
    first = np.zeros((ROWS, num_vectors), np.int64)
    remaining = np.zeros((ROWS, num_vectors), np.int64)
    having = np.zeros(num_vectors, np.int64)  # a bit for each row with weights left
    slot = 0
    for group in range(groups):
        remaining[:] = 0
        having[:] = 0
        for row in range(ROWS):
            for k in range(starts[group * ROWS + row], starts[group * ROWS + row + 1]):
                vector = columns[k] // LANES
                if remaining[row, vector] == 0:
                    first[row, vector] = k
                    having[vector] |= 1 << row
                remaining[row, vector] += 1
        one = -1
        while True:
            if one < 0 or having[one] == 0:
                one = _fewest(having)
            if one < 0:
                break
            if slot + _UNROLL > size:
                size *= 2
                vectors, lanes = _grown(vectors, size), _grown(lanes, size)
                packed = _grown(packed, size)
            other = _most(having, one)
            vectors[slot, 0], vectors[slot, 1] = one, other
            for row in range(ROWS):
                for i, vector in enumerate((one, other)):
                    if remaining[row, vector]:
                        k = first[row, vector]
                        lanes[slot, row] = i * LANES + columns[k] % LANES
                        packed[slot, row] = values[k]
                        first[row, vector] += 1
                        remaining[row, vector] -= 1
                        if remaining[row, vector] == 0:
                            having[vector] &= ~(1 << row)
                        break
            slot += 1
        slot += (slot - group_starts[group]) % _UNROLL
        group_starts[group + 1] = slot
    return group_starts, vectors[:slot], lanes[:slot], packed[:slot]


@inner
def _fewest(having):
    """Returns the vector with weights of the fewest rows, so that few are left over at the end."""
    best, found = ROWS + 1, -1
    for vector in range(having.size):
        count = _bits(having[vector])
        if 0 < count < best:
            best, found = count, vector
    return found


@inner
def _most(having, one):
    """Returns the vector with weights of the most rows that have none in `one`."""
    best, found = 0, one
    for vector in range(having.size):
        count = _bits(having[vector] & ~having[one])
        if count > best:
            best, found = count, vector
    return found


@inner
def _grown(array, size):
    grown = np.zeros((size, array.shape[1]), array.dtype)
    grown[: array.shape[0]] = array
    return grown
