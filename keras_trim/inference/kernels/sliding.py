"""Convolutions whose sums move in place of the image.

What the taps of one column of a window add to an output lies right below one another. So a row of
weights is multiplied column by column, the last one first, and from one to the next all sums move
by a pixel. Every activation is read where a vector begins, where other kernels copy the image once
for each tap, or read vectors that lie across two cache lines.

The method adds up one tap after the other and shifts what it has, as kn2row does with images
(Anderson et al., "Low-memory GEMM-based convolution algorithms for deep neural networks", 2017),
but in registers, so that it costs an instruction per vector and not a pass over memory.

Lines of the input are whole vectors, and its channels few enough for the first-level cache: they
are copied there a part of the image and a block of channels at a time, or come padded. Sums move on
at the end of their line into its padding.
"""

import functools

from llvmlite import ir
from numba import njit, types

from keras_trim.inference.kernels.edges import mask_at
from keras_trim.inference.kernels.threads import share, take
from keras_trim.inference.kernels.vector import (
    AHEAD,
    FIRST,
    I32,
    I64,
    LANES,
    REGISTERS,
    RESIDUAL,
    Body,
    loop,
    outlined,
)

MOST_SUMS = 16 if REGISTERS == 32 else 12  # vectors
_LAST = 8  # flag: the sums are complete
_EVEN = 8  # pieces per thread, so many that one more for some of them does not matter


@functools.cache
def pack_lines():
    """Makes `kernel(target, x, plane, channels, line, lines, above, inside, vectors, masks)`.

    It copies lines of each of `channels` planes, `plane` bytes apart, one line of `vectors` vectors
    behind the other: `above` lines of zeros, `inside` lines of the image, which are `line` bytes
    apart there, and zeros again, `lines` in all.

    Addresses: `target`; `x`, float32, where the vectors of the first line of zeros would begin;
    `masks`, uint16, (vectors,), which lanes of a line are pixels. No others are read.
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


@functools.cache
def multiply_slide(vectors):
    """Makes `kernel(x, offsets, values, counts, rows, shifts, sums, y, stride, bias, residual,
    places, kept, flags, low, high)`.

    For each of `rows` rows it computes `vectors * LANES` sums: begun with the bias, with the flag
    `FIRST`, or with zero, they are moved down by one float before each of `shifts` sets of columns
    but the first, and

        sums[:] += sum(values[k] * x[offsets[k] :] for k in range(count))

    for the `count` columns of a set. Without `FIRST` what is in memory is added at last. The sums
    are stored there, or with the flag `LAST` in the output: with `RESIDUAL` added, and clipped with
    `CLIP`.

    Vectors are written whole, each one to its place in the output, in their order, so that what is
    too much at the end of a line is overwritten by the next; but of the last one of all only `kept`
    floats.

    The kernel takes addresses of: `x`, float32; `offsets`, int32, and `values`, float32, one set
    behind the other, one row behind the other; `counts`, int32, (rows, shifts); `sums`, float32,
    (rows, vectors * LANES); `y`, float32, whose rows are `stride` bytes apart, and `residual`,
    which lies as y, read up to LANES floats behind its end; `bias`, float32, (rows,); `places`,
    int32, (vectors,), in floats.
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
    totals = _plus(
        body, totals, b.not_(body.has(flags, FIRST)),
        lambda: [body.load(sums_row, i * LANES * 4) for i in numbers],
    )  # fmt: skip
    keep, store, end_of_row = body.blocks("keep", "store", "end_of_row")
    b.cbranch(body.has(flags, _LAST), store, keep)
    b.position_at_end(keep)
    for i, total in enumerate(totals):
        body.store(total, sums_row, i * LANES * 4)
    b.branch(end_of_row)

    b.position_at_end(store)
    where = [b.shl(b.sext(body.scalar_at(places, I64(i), I32), I64), I64(2)) for i in numbers]
    totals = _plus(
        body, totals, body.has(flags, RESIDUAL),
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


def _plus(body, totals, condition, load):
    """Adds vectors to others if a condition holds; opens new blocks."""
    before = body.b.block
    add, added = body.blocks("add", "added")
    body.b.cbranch(condition, add, added)
    body.b.position_at_end(add)
    larger = [body.b.fadd(a, c) for a, c in zip(totals, load(), strict=True)]
    body.b.branch(added)
    body.b.position_at_end(added)
    return body.merge(before, totals, add, larger)


_pack_lines = pack_lines()
(
    _slide_1, _slide_2, _slide_3, _slide_4, _slide_5, _slide_6, _slide_7, _slide_8, _slide_9,
    _slide_10, _slide_11, _slide_12, _slide_13, _slide_14, _slide_15, _slide_16,
) = (multiply_slide(min(vectors, MOST_SUMS)) for vectors in range(1, 17))  # fmt: skip


@njit(nogil=True, boundscheck=False)
def _slide(
    vectors, x, offsets, values, counts, rows, shifts, sums, y, stride, bias, residual, places,
    kept, flags, low, high,
):  # fmt: skip
    """Calls the kernel for as many vectors."""
    a = (
        x, offsets, values, counts, rows, shifts, sums, y, stride, bias, residual, places, kept,
        flags, low, high,
    )  # fmt: skip
    if vectors == 1:
        _slide_1(*a)
    elif vectors == 2:
        _slide_2(*a)
    elif vectors == 3:
        _slide_3(*a)
    elif vectors == 4:
        _slide_4(*a)
    elif vectors == 5:
        _slide_5(*a)
    elif vectors == 6:
        _slide_6(*a)
    elif vectors == 7:
        _slide_7(*a)
    elif vectors == 8:
        _slide_8(*a)
    elif vectors == 9:
        _slide_9(*a)
    elif vectors == 10:
        _slide_10(*a)
    elif vectors == 11:
        _slide_11(*a)
    elif vectors == 12:
        _slide_12(*a)
    elif vectors == 13:
        _slide_13(*a)
    elif vectors == 14:
        _slide_14(*a)
    elif vectors == 15:
        _slide_15(*a)
    else:
        _slide_16(*a)


# The operands of an instruction, by their column in the program.
(
    X, X_SAMPLE, ROW, Y, Y_SAMPLE, PLANE, BATCH, HEIGHT, WIDTH, LINES, OUTPUTS, SHIFTS, BLOCKS,
    STARTS, COUNTS, OFFSETS, VALUES, BIAS, OTHER, OTHER_SAMPLE, SCRATCH, SCRATCH_SIZE, FLAGS,
    PLACES, PACKED, CHANNELS, X_PLANE, X_HEIGHT, X_WIDTH, TOP, LEFT, REACH, INSIDE,
) = range(1, 34)  # fmt: skip


@njit(nogil=True, boundscheck=False)
def sliding(
    p, f, arena, constants, index, short_index, control, thread, num_threads
):  # fmt: skip
    """y = clip(weights * x + bias + residual), see `operations/sliding.py` for its operands.

    Work is split into pieces of up to `LINES` lines, and into rows of weights where these are too
    few for the threads. `PACKED` channels at a time are copied, or none if the input is padded.
    """
    base, outputs, blocks = arena.ctypes.data, p[OUTPUTS], p[BLOCKS]
    parts = (p[HEIGHT] + p[LINES] - 1) // p[LINES]
    splits = num_threads if p[BATCH] * parts < num_threads else 1
    if splits == 1 and p[BATCH] * parts < _EVEN * num_threads:
        # As many pieces for each thread.
        parts = min((parts + num_threads - 1) // num_threads * num_threads, p[HEIGHT])
    pieces = p[BATCH] * parts
    packed = base + 4 * (p[SCRATCH] + thread * p[SCRATCH_SIZE])
    sums = packed + 4 * p[PACKED] * (p[LINES] + p[REACH]) * p[ROW]
    item, end = take(control, pieces * splits, 1, thread, num_threads)
    while item < end:
        split, sample, part = item // pieces, item % pieces // parts, item % parts
        line, last_line = share(p[HEIGHT], part, parts)
        row, last_row = share(outputs, split, splits)
        x = base + 4 * (p[X] + sample * p[X_SAMPLE] + line * p[ROW])
        image = p[X] + sample * p[X_SAMPLE] + (line - p[TOP]) * p[X_WIDTH] - p[LEFT]
        above = max(p[TOP] - line, 0)
        below = max(last_line - p[TOP] + p[REACH] - p[X_HEIGHT], 0)
        lines = p[LINES] + p[REACH]
        inside = max(last_line - line + p[REACH] - above - below, 0)
        y = row * p[PLANE] + line * p[WIDTH]
        for turn in range(blocks if row < last_row else 0):
            # A thread that has some rows of y often made as many channels of x: begun with these,
            # it need not wait right away for what lies in the cache of another core.
            block = (blocks * split // splits + turn) % blocks
            if p[PACKED]:
                x, channel = packed, block * p[PACKED]
                _pack_lines(
                    x, base + 4 * (image + channel * p[X_PLANE]), 4 * p[X_PLANE],
                    min(p[PACKED], p[CHANNELS] - channel), 4 * p[X_WIDTH], lines, above, inside,
                    p[ROW] // LANES, short_index.ctypes.data + 2 * p[INSIDE],
                )  # fmt: skip
            flags = FIRST if turn == 0 else 0
            if turn == blocks - 1:
                flags |= _LAST | p[FLAGS]
            first = block * outputs + row
            start = index[p[STARTS] + first]
            _slide(
                (last_line - line) * p[ROW] // LANES, x,
                index.ctypes.data + 4 * (p[OFFSETS] + start),
                constants.ctypes.data + 4 * (p[VALUES] + start),
                index.ctypes.data + 4 * (p[COUNTS] + first * p[SHIFTS]), last_row - row, p[SHIFTS],
                sums, base + 4 * (p[Y] + sample * p[Y_SAMPLE] + y), 4 * p[PLANE],
                constants.ctypes.data + 4 * (p[BIAS] + row),
                base + 4 * (p[OTHER] + sample * p[OTHER_SAMPLE] + y),
                index.ctypes.data + 4 * p[PLACES],
                p[WIDTH] - p[ROW] + LANES, flags, f[0], f[1],
            )  # fmt: skip
        item, end = take(control, pieces * splits, 1, thread, num_threads)
