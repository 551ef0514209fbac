"""What Numba lacks: vectors that stay in registers, and a barrier between threads.

`multiply_add(rows, vectors)` makes the inner loop of every product with weights. It keeps
`rows * vectors` sums in vector registers while it goes through the columns of a group of rows, so
that memory is touched only for a weight, its offset, and the activations it multiplies. With one row
it is a sparse row times activations; with all columns present it is a dense, register-tiled product.

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
def multiply_add(rows, vectors, in_lines=False):
    """Makes `kernel(x, offsets, values, count, y, stride, bias, residual, flags, low, high)`.

    For `rows` rows and `vectors * LANES` activations it computes

        y[r, :] = clip(start[r, :] + sum(values[k, r] * x[offsets[k] :] for k in range(count)))

    where `start` is `bias[r]` with the flag `FIRST` and `y[r, :]` without it.

    The kernel takes addresses of: `x`, float32, the first activation; `offsets`, int32, counted in
    floats; `values`, float32, (count, rows); `y`, float32, whose rows are `stride` bytes apart;
    `bias`, float32, (rows,); `residual`, as `y`, added with the flag `RESIDUAL`. `low` and `high` are
    float32, used with the flag `CLIP`; NaN passes through a clip, as in Keras.

    Args:
        rows: Integer. Rows of weights that share their columns.
        vectors: Integer. Vectors of activations.
        in_lines: Boolean. The vectors are not behind one another: they are the beginnings of
            `vectors` lines of an image. `stride` is then the bytes between lines of y and
            `residual` those between lines of x; rows must be 1.
    """

    @intrinsic
    def kernel(
        typing_context, x, offsets, values, count, y, stride, bias, residual, flags, low, high
    ):
        address = types.intp
        signature = types.void(
            address, address, address, types.int64, address, types.int64, address, address,
            types.int64, types.float32, types.float32,
        )  # fmt: skip

        def codegen(context, builder, signature, arguments):
            # One function per kind, not inlined: it is long, and called from several places.
            name = f"multiply_add_{rows}x{vectors}" + ("_lines" if in_lines else "")
            function = builder.module.globals.get(name)
            if function is None:
                kind = ir.FunctionType(ir.VoidType(), [value.type for value in arguments])
                function = ir.Function(builder.module, kind, name)
                function.linkage = "linkonce_odr"
                function.attributes.add("noinline")
                _build_multiply_add(function, rows, vectors, in_lines)
            builder.call(function, arguments)
            return context.get_dummy_value()

        return signature, codegen

    return kernel


def _build_multiply_add(function, rows, vectors, in_lines):
    """Writes the body of a kernel of `multiply_add`."""
    vector = ir.VectorType(F32, LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    first_lane = ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
    b = ir.IRBuilder(function.append_basic_block("entry"))
    x, offsets, values, count, y, stride, bias, residual, flags, low, high = function.args
    fma = cgutils.get_or_insert_function(
        b.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{LANES}f32"
    )

    def splat(scalar):
        return b.shuffle_vector(
            b.insert_element(undefined, scalar, I32(0)), undefined, first_lane
        )

    def scalar_at(base, index, kind=F32):
        return b.load(b.gep(b.inttoptr(base, kind.as_pointer()), [index]))

    def input_pointer(base, i):
        step = b.mul(residual, I64(i)) if in_lines else I64(i * LANES * 4)
        return b.inttoptr(b.add(base, step), vector.as_pointer())

    def output_pointer(base, row, i):
        if in_lines:
            return b.inttoptr(b.add(base, b.mul(stride, I64(i))), vector.as_pointer())
        where = b.add(base, b.mul(stride, I64(row))) if row else base
        return b.inttoptr(b.add(where, I64(i * LANES * 4)), vector.as_pointer())

    def has(flag):
        return b.icmp_unsigned("!=", b.and_(flags, I64(flag)), I64(0))

    def blocks(*names):
        return [function.append_basic_block(name) for name in names]

    def merge(block_a, values_a, block_b, values_b):
        merged = []
        for value_a, value_b in zip(values_a, values_b, strict=True):
            phi = b.phi(vector)
            phi.add_incoming(value_a, block_a)
            phi.add_incoming(value_b, block_b)
            merged.append(phi)
        return merged

    tile = [(r, i) for r in range(rows) for i in range(vectors)]
    from_bias, from_y, head, body, done = blocks("from_bias", "from_y", "head", "body", "done")
    b.cbranch(has(FIRST), from_bias, from_y)
    b.position_at_end(from_bias)
    biases = [splat(scalar_at(bias, I64(r))) for r in range(rows)]
    b.branch(head)
    b.position_at_end(from_y)
    loaded = [b.load(output_pointer(y, r, i), align=4) for r, i in tile]
    b.branch(head)

    b.position_at_end(head)
    k = b.phi(I64)
    k.add_incoming(I64(0), from_bias)
    k.add_incoming(I64(0), from_y)
    sums = merge(from_bias, [biases[r] for r, _ in tile], from_y, loaded)
    b.cbranch(b.icmp_signed("<", k, count), body, done)

    b.position_at_end(body)
    offset = b.sext(scalar_at(offsets, k, I32), I64)
    start = b.add(x, b.shl(offset, I64(2)))
    inputs = [b.load(input_pointer(start, i), align=4) for i in range(vectors)]
    first_weight = b.mul(k, I64(rows)) if rows > 1 else k
    weights = [
        splat(scalar_at(values, b.add(first_weight, I64(r)) if r else first_weight))
        for r in range(rows)
    ]
    for total, (r, i) in zip(sums, tile, strict=True):
        total.add_incoming(b.call(fma, [weights[r], inputs[i], total]), body)
    k.add_incoming(b.add(k, I64(1)), body)
    b.branch(head)

    b.position_at_end(done)
    clip, store = blocks("clip", "store")
    last = done
    if not in_lines:
        add, added = blocks("add", "added")
        b.cbranch(has(RESIDUAL), add, added)
        b.position_at_end(add)
        with_residual = [
            b.fadd(total, b.load(output_pointer(residual, r, i), align=4))
            for total, (r, i) in zip(sums, tile, strict=True)
        ]
        b.branch(added)
        b.position_at_end(added)
        sums, last = merge(done, sums, add, with_residual), added
    b.cbranch(has(CLIP), clip, store)
    b.position_at_end(clip)
    lows, highs = splat(low), splat(high)
    clipped = []
    for total in sums:
        total = b.select(b.fcmp_ordered("<", total, lows), lows, total)
        clipped.append(b.select(b.fcmp_ordered(">", total, highs), highs, total))
    b.branch(store)
    b.position_at_end(store)
    for total, (r, i) in zip(merge(last, sums, clip, clipped), tile, strict=True):
        b.store(total, output_pointer(y, r, i), align=4)
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
        lanes = ir.Constant(ir.VectorType(I64, LANES), list(range(LANES)))
        undefined = ir.Constant(ir.VectorType(I64, LANES), ir.Undefined)
        left = b.shuffle_vector(
            b.insert_element(undefined, b.sub(count, whole), I32(0)),
            undefined,
            ir.Constant(ir.VectorType(I32, LANES), [0] * LANES),
        )
        store = cgutils.get_or_insert_function(
            b.module,
            ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), I32, mask]),
            f"llvm.masked.store.v{LANES}f32.p0",
        )
        with b.if_then(b.icmp_signed("<", whole, count)):
            tail = b.load(_vector_at(b, source, whole), align=4)
            keep = b.icmp_signed("<", lanes, left)
            b.call(store, [tail, _vector_at(b, target, whole), I32(4), keep])
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def deinterleave(typing_context, even, odd, source, count):
    """Copies floats 0, 2, 4 ... of a source to `even`, 1, 3, 5 ... to `odd`, `count` to each.

    Reads and writes up to the next multiple of LANES.
    """
    signature = types.void(types.intp, types.intp, types.intp, types.int64)

    def codegen(context, builder, signature, arguments):
        b = builder
        even, odd, source, count = arguments
        i, close = _loop(b, count)
        first = b.load(_vector_at(b, source, b.shl(i, I64(1))), align=4)
        second = b.load(
            _vector_at(b, source, b.add(b.shl(i, I64(1)), I64(LANES))), align=4
        )
        for target, start in ((even, 0), (odd, 1)):
            picked = ir.Constant(
                ir.VectorType(I32, LANES), list(range(start, 2 * LANES, 2))
            )
            b.store(
                b.shuffle_vector(first, second, picked), _vector_at(b, target, i), align=4
            )
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
