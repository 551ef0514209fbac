"""What Numba lacks: vectors that stay in registers, and a barrier between threads.

`multiply_add(rows, vectors)` makes the inner loop of every product with weights. It keeps
`rows * vectors` sums in vector registers while it goes through the columns of a group of rows, so
that memory is touched only for a weight, its offset, and the activations it multiplies. With one
row it is a sparse row times activations; with all columns present it is a dense, register-tiled
product.

Addresses are integers (`array.ctypes.data`), so that a kernel can be handed a place inside of one
large buffer.
"""

import functools

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)


def _vector_shape():
    """Floats per vector and number of vector registers of this machine."""
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 16, 32
    if features.get("avx") or features.get("avx2"):
        return 8, 16
    return 4, 32 if "aarch64" in llvmlite.binding.get_process_triple() else 16


LANES, REGISTERS = _vector_shape()
WIDEST = 8  # vectors of activations that one sparse row is multiplied with at once
ROW_GROUPS = (6, 4, 2)  # rows that share their columns, most first; others go one by one
WIDEST_GROUP = 4 if REGISTERS == 32 else 2  # vectors of activations for such a group

FIRST, CLIP, RESIDUAL = 1, 2, 4  # flags: start from the bias; clip the sums; add a residual


@functools.cache
def multiply_add(rows, vectors):
    """Makes `kernel(x, offsets, values, table, groups, y, stride, bias, residual, flags, low,
    high)`.

    It goes through `groups` groups of `rows` rows each, and for `vectors * LANES` activations
    computes, for a group with `count` columns,

        y[r, :] = clip(start[r, :] + sum(values[k, r] * x[offsets[k] :] for k in range(count)))

    where `start` is `bias[r]` with the flag `FIRST` and `y[r, :]` without it.

    The kernel takes addresses of: `x`, float32, the first activation; `offsets`, int32, counted in
    floats; `values`, float32, (columns, rows); `table`, int32, (groups, 3), whose second column is
    `count`; `y`, float32, whose rows are `stride` bytes apart; `bias`, float32; `residual`, as `y`,
    added with the flag `RESIDUAL`. Columns, values and rows of one group lie behind those of the
    group before it. `low` and `high` are float32, used with the flag `CLIP`; NaN passes through a
    clip, as in Keras.
    """
    address, i64, f32 = types.intp, types.int64, types.float32
    operands = (
        address, address, address, address, i64, address, i64, address, address, i64, f32, f32,
    )  # fmt: skip
    name = f"multiply_add_{rows}x{vectors}"
    return _outlined(name, operands, lambda f: _build_multiply_add(f, rows, vectors))


def _outlined(name, operand_types, build):
    """An intrinsic that calls a function of its own, which is long, and called from many places."""
    count = len(operand_types)

    def codegen(context, builder, signature, arguments):
        function = builder.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(ir.VoidType(), [value.type for value in arguments])
            function = ir.Function(builder.module, kind, name)
            function.linkage = "linkonce_odr"
            function.attributes.add("noinline")
            build(function)
        builder.call(function, arguments)
        return context.get_dummy_value()

    signature = types.void(*operand_types)
    # Numba counts the parameters of the function it decorates.
    parameters = ", ".join(f"a{i}" for i in range(count))
    scope = {"signature": signature, "codegen": codegen}
    exec(f"def kernel(context, {parameters}):\n    return signature, codegen", scope)
    return intrinsic(scope["kernel"])


class _Body:
    """Writes the code of a kernel in LLVM's language."""

    def __init__(self, function):
        self.function = function
        self.vector = ir.VectorType(F32, LANES)
        self.b = ir.IRBuilder(function.append_basic_block("entry"))
        self._fma = cgutils.get_or_insert_function(
            function.module,
            ir.FunctionType(self.vector, [self.vector] * 3),
            f"llvm.fma.v{LANES}f32",
        )

    def blocks(self, *names):
        return [self.function.append_basic_block(name) for name in names]

    def splat(self, scalar):
        undefined = ir.Constant(self.vector, ir.Undefined)
        first_lane = ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
        one = self.b.insert_element(undefined, scalar, I32(0))
        return self.b.shuffle_vector(one, undefined, first_lane)

    def scalar_at(self, base, index, kind=F32):
        pointer = self.b.inttoptr(base, kind.as_pointer())
        return self.b.load(self.b.gep(pointer, [index]))

    def at(self, base, offset=0):
        """A pointer to the vector at `base + offset` bytes."""
        where = self.b.add(base, I64(offset) if isinstance(offset, int) else offset)
        return self.b.inttoptr(where, self.vector.as_pointer())

    def load(self, base, offset=0):
        return self.b.load(self.at(base, offset), align=4)

    def store(self, value, base, offset=0):
        self.b.store(value, self.at(base, offset), align=4)

    def multiply_add(self, a, b, c):
        return self.b.call(self._fma, [a, b, c])

    def joined(self, kind, total, value):
        """The "sum" or, with NaN as the largest, "maximum" of two vectors."""
        if total is None:
            return value
        if kind == "sum":
            return self.b.fadd(total, value)
        larger = self.b.fcmp_unordered(">", value, total)  # or either is NaN
        picked = self.b.select(larger, value, total)
        is_nan = self.b.fcmp_unordered("uno", total, total)
        return self.b.select(is_nan, total, picked)

    def has(self, flags, flag):
        return self.b.icmp_unsigned("!=", self.b.and_(flags, I64(flag)), I64(0))

    def merge(self, block_a, values_a, block_b, values_b):
        merged = []
        for value_a, value_b in zip(values_a, values_b, strict=True):
            phi = self.b.phi(self.vector)
            phi.add_incoming(value_a, block_a)
            phi.add_incoming(value_b, block_b)
            merged.append(phi)
        return merged

    def clipped(self, values, flags, low, high):
        """The values, clipped if the flag `CLIP` is set; opens new blocks."""
        before = self.b.block
        clip, done = self.blocks("clip", "clipped")
        self.b.cbranch(self.has(flags, CLIP), clip, done)
        self.b.position_at_end(clip)
        lows, highs = self.splat(low), self.splat(high)
        bounded = []
        for value in values:
            value = self.b.select(self.b.fcmp_ordered("<", value, lows), lows, value)
            bounded.append(self.b.select(self.b.fcmp_ordered(">", value, highs), highs, value))
        self.b.branch(done)
        self.b.position_at_end(done)
        return self.merge(before, values, clip, bounded)


def _build_multiply_add(function, rows, vectors):
    body = _Body(function)
    b = body.b
    (
        x, offsets, values, table, groups, y, stride, bias, residual, flags, low, high,
    ) = function.args  # fmt: skip
    entry = b.block
    tile = [(r, i * LANES * 4) for r in range(rows) for i in range(vectors)]
    group_stride = b.mul(stride, I64(rows))

    (group_head,) = body.blocks("group")
    b.branch(group_head)
    b.position_at_end(group_head)
    pointers = [b.phi(I64) for _ in range(7)]
    group, offsets_now, values_now, table_now, y_now, bias_now, residual_now = pointers
    starts = (I64(0), offsets, values, table, y, bias, residual)
    for pointer, start in zip(pointers, starts, strict=True):
        pointer.add_incoming(start, entry)
    count = b.sext(body.scalar_at(table_now, I64(1), I32), I64)
    from_bias, from_y, head, step, done = body.blocks("from_bias", "from_y", "head", "step", "done")

    def row(base, r):
        return b.add(base, b.mul(stride, I64(r))) if r else base

    b.cbranch(body.has(flags, FIRST), from_bias, from_y)
    b.position_at_end(from_bias)
    biases = [body.splat(body.scalar_at(bias_now, I64(r))) for r in range(rows)]
    b.branch(head)
    b.position_at_end(from_y)
    loaded = [body.load(row(y_now, r), i) for r, i in tile]
    b.branch(head)

    b.position_at_end(head)
    k = b.phi(I64)
    k.add_incoming(I64(0), from_bias)
    k.add_incoming(I64(0), from_y)
    sums = body.merge(from_bias, [biases[r] for r, _ in tile], from_y, loaded)
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
    for total, (r, i) in zip(sums, tile, strict=True):
        total.add_incoming(body.multiply_add(weights[r], inputs[i // (LANES * 4)], total), step)
    k.add_incoming(b.add(k, I64(1)), step)
    b.branch(head)

    b.position_at_end(done)
    add, added = body.blocks("add", "added")
    b.cbranch(body.has(flags, RESIDUAL), add, added)
    b.position_at_end(add)
    with_residual = [
        b.fadd(total, body.load(row(residual_now, r), i))
        for total, (r, i) in zip(sums, tile, strict=True)
    ]
    b.branch(added)
    b.position_at_end(added)
    sums = body.merge(done, sums, add, with_residual)
    for total, (r, i) in zip(body.clipped(sums, flags, low, high), tile, strict=True):
        body.store(total, row(y_now, r), i)

    steps = (
        I64(1), b.shl(count, I64(2)), b.mul(count, I64(4 * rows)), I64(12), group_stride,
        I64(4 * rows), group_stride,
    )  # fmt: skip
    for pointer, step_size in zip(pointers, steps, strict=True):
        pointer.add_incoming(b.add(pointer, step_size), b.block)
    (end,) = body.blocks("end")
    b.cbranch(b.icmp_signed("<", group.incomings[1][0], groups), group_head, end)
    b.position_at_end(end)
    b.ret_void()


def _loop(b, count):
    """Opens a loop over 0, LANES, 2 * LANES ... below `count`; returns (index, close)."""
    before = b.block
    head, body, done = (b.function.append_basic_block(name) for name in ("head", "body", "done"))
    b.branch(head)
    b.position_at_end(head)
    i = b.phi(I64)
    i.add_incoming(I64(0), before)
    b.cbranch(b.icmp_signed("<", i, count), body, done)
    b.position_at_end(body)

    def close():
        i.add_incoming(b.add(i, I64(LANES)), b.block)
        b.branch(head)
        b.position_at_end(done)

    return i, close


def _vector_at(b, base, index):
    vector = ir.VectorType(F32, LANES)
    return b.inttoptr(b.add(base, b.shl(index, I64(2))), vector.as_pointer())


def _splat(b, scalar, kind=F32):
    vector = ir.VectorType(kind, LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    return b.shuffle_vector(
        b.insert_element(undefined, scalar, I32(0)),
        undefined,
        ir.Constant(ir.VectorType(I32, LANES), [0] * LANES),
    )


def _first_lanes(b, count):
    """A mask of the first `count` lanes; none if it is negative."""
    lanes = ir.Constant(ir.VectorType(I64, LANES), list(range(LANES)))
    return b.icmp_signed("<", lanes, _splat(b, count, I64))


@intrinsic
def copy_padded(typing_context, target, source, count, padded, value):
    """Copies `count` floats between addresses, then `value` up to `padded` floats.

    It reads and writes whole vectors, up to LANES - 1 floats more.
    """
    signature = types.void(types.intp, types.intp, types.int64, types.int64, types.float32)

    def codegen(context, builder, signature, arguments):
        b = builder
        target, source, count, padded, value = arguments
        values = _splat(b, value)
        i, close = _loop(b, padded)
        loaded = b.load(_vector_at(b, source, i), align=4)
        kept = b.select(_first_lanes(b, b.sub(count, i)), loaded, values)
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
        values = _splat(b, value)
        i, close = _loop(b, count)
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
        body = _Body(function)
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
    return _outlined(f"pack_columns_{vectors}", operands, build)


@intrinsic
def copy_floats(typing_context, target, source, count):
    """Copies `count` floats between two addresses; reads up to LANES - 1 behind them."""
    signature = types.void(types.intp, types.intp, types.int64)

    def codegen(context, builder, signature, arguments):
        b = builder
        target, source, count = arguments
        vector, mask = ir.VectorType(F32, LANES), ir.VectorType(ir.IntType(1), LANES)
        whole = b.and_(count, I64(-LANES))
        i, close = _loop(b, whole)
        b.store(b.load(_vector_at(b, source, i), align=4), _vector_at(b, target, i), align=4)
        close()
        store = cgutils.get_or_insert_function(
            b.module,
            ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), I32, mask]),
            f"llvm.masked.store.v{LANES}f32.p0",
        )
        with b.if_then(b.icmp_signed("<", whole, count)):
            tail = b.load(_vector_at(b, source, whole), align=4)
            keep = _first_lanes(b, b.sub(count, whole))
            b.call(store, [tail, _vector_at(b, target, whole), I32(4), keep])
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
        values = _splat(b, value)
        i, close = _loop(b, padded)
        first = b.load(_vector_at(b, source, b.shl(i, I64(1))), align=4)
        second = b.load(_vector_at(b, source, b.add(b.shl(i, I64(1)), I64(LANES))), align=4)
        for target, count, start in ((odd, odd_count, 1), (even, even_count, 0)):
            picked = ir.Constant(ir.VectorType(I32, LANES), list(range(start, 2 * LANES, 2)))
            kept = b.select(
                _first_lanes(b, b.sub(count, i)),
                b.shuffle_vector(first, second, picked),
                values,
            )
            b.store(kept, _vector_at(b, target, i), align=4)
        close()
        return context.get_dummy_value()

    return signature, codegen


def _pointer_to(context, builder, array_type, array, index):
    view = context.make_array(array_type)(context, builder, array)
    return builder.gep(view.data, [index])


@intrinsic
def atomic_add(typing_context, array, index, value):
    """Adds to an element of an int64 array; returns what it was before."""
    signature = types.int64(array, types.int64, types.int64)

    def codegen(context, builder, signature, arguments):
        array, index, value = arguments
        pointer = _pointer_to(context, builder, signature.args[0], array, index)
        return builder.atomic_rmw("add", pointer, value, "seq_cst")

    return signature, codegen


@intrinsic
def atomic_load(typing_context, array, index):
    """Reads an element of an int64 array that another thread may change."""
    signature = types.int64(array, types.int64)

    def codegen(context, builder, signature, arguments):
        array, index = arguments
        pointer = _pointer_to(context, builder, signature.args[0], array, index)
        return builder.load_atomic(pointer, "seq_cst", 8)

    return signature, codegen
