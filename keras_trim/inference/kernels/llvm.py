"""Tools to write kernels in LLVM IR, with what Numba lacks: vectors that stay in registers.

Kernels take addresses as integers (`array.ctypes.data`), so callers can pass places inside of one
large buffer.
"""

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)


def _features():
    """Returns the CPU features that Numba compiles for: this machine's, unless NUMBA_CPU_FEATURES
    names others, as in "+avx2,+fma".
    """
    if config.CPU_FEATURES is None:
        return llvmlite.binding.get_host_cpu_features()
    asked = {name[1:]: name[0] == "+" for name in config.CPU_FEATURES.split(",") if name}
    here = llvmlite.binding.get_host_cpu_features()
    missing = [name for name, is_on in asked.items() if is_on and not here.get(name, True)]
    if missing:  # the first such instruction would crash the process
        raise ImportError(
            "This processor lacks what kernels are compiled for: unset NUMBA_CPU_FEATURES, or name "
            "only what all of your machines have. "
            f"Received: {config.CPU_FEATURES}, without {missing}"
        )
    return asked


def _vector_shape():
    """Returns the floats per vector and the number of vector registers."""
    features = _features()
    if features.get("avx512f"):
        return 16, 32
    if features.get("avx") or features.get("avx2"):
        return 8, 16
    return 4, 32 if "aarch64" in llvmlite.binding.get_process_triple() else 16


LANES, REGISTERS = _vector_shape()
LINE = 16  # floats of a cache line and, at most, of a vector
# How many bytes ahead of the current weights to prefetch. A processor prefetches streams on its
# own, but stops at the end of each page. Dense rows need so many lines that prefetching them costs
# more than it saves.
AHEAD = 4096
FIRST, CLIP, RESIDUAL = 1, 2, 4  # flags: start from the bias; clip the sums; add a residual


def outlined(name, operand_types, build):
    """Returns an intrinsic that calls a separate function, for long code with many callers."""
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


class Body:
    """Builds the LLVM IR of a kernel."""

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
        """Returns a pointer to the vector at `base + offset` bytes."""
        where = self.b.add(base, I64(offset) if isinstance(offset, int) else offset)
        return self.b.inttoptr(where, self.vector.as_pointer())

    def load(self, base, offset=0):
        return self.b.load(self.at(base, offset), align=4)

    def load_where(self, lanes, base, offset=0):
        """Loads the lanes of a mask. Other lanes are zero, and their memory is not touched."""
        mask = ir.VectorType(ir.IntType(1), LANES)
        pointer = self.at(base, offset)
        kind = ir.FunctionType(self.vector, [pointer.type, I32, mask, self.vector])
        load = cgutils.get_or_insert_function(
            self.b.module, kind, f"llvm.masked.load.v{LANES}f32.p0"
        )
        return self.b.call(load, [pointer, I32(4), lanes, ir.Constant(self.vector, [0.0] * LANES)])

    def store(self, value, base, offset=0):
        self.b.store(value, self.at(base, offset), align=4)

    def store_first(self, value, count, base, offset=0):
        """Like the function of the same name."""
        store_first(self.b, value, count, self.at(base, offset))

    def fetch(self, base, offset=0, to_write=False):
        """Prefetches a cache line that will be read or written."""
        kind = ir.FunctionType(ir.VoidType(), [self.vector.as_pointer(), I32, I32, I32])
        prefetch = cgutils.get_or_insert_function(self.b.module, kind, "llvm.prefetch.p0")
        all_levels, data = I32(3), I32(1)
        self.b.call(prefetch, [self.at(base, offset), I32(int(to_write)), all_levels, data])

    def multiply_add(self, a, b, c):
        return self.b.call(self._fma, [a, b, c])

    def joined(self, kind, total, value):
        """Returns the "sum" or "maximum" of two vectors; NaN counts as the largest."""
        if total is None:
            return value
        if kind == "sum":
            return self.b.fadd(total, value)
        larger = self.b.fcmp_unordered(">", value, total)  # or either is NaN
        picked = self.b.select(larger, value, total)
        is_nan = self.b.fcmp_unordered("uno", total, total)
        return self.b.select(is_nan, total, picked)

    def reduced(self, kind, value):
        """Returns the "sum" or "maximum" of a vector's lanes."""
        half = LANES // 2
        while half:
            lanes = ir.Constant(ir.VectorType(I32, LANES), [i ^ half for i in range(LANES)])
            value = self.joined(kind, value, self.b.shuffle_vector(value, value, lanes))
            half //= 2
        return self.b.extract_element(value, I32(0))

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

    def plus_if(self, values, condition, load):
        """Returns the values, plus those of `load()` if a condition holds; opens new blocks."""
        before = self.b.block
        add, added = self.blocks("add", "added")
        self.b.cbranch(condition, add, added)
        self.b.position_at_end(add)
        totals = [self.b.fadd(a, other) for a, other in zip(values, load(), strict=True)]
        self.b.branch(added)
        self.b.position_at_end(added)
        return self.merge(before, values, add, totals)

    def clipped(self, values, flags, low, high):
        """Returns the values, clipped if the flag `CLIP` is set; opens new blocks."""
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


def loop(b, count, step=LANES):
    """Opens a loop over 0, step, 2 * step ... below `count`; returns (index, close)."""
    before = b.block
    head, body, done = (b.function.append_basic_block(name) for name in ("head", "body", "done"))
    b.branch(head)
    b.position_at_end(head)
    i = b.phi(I64)
    i.add_incoming(I64(0), before)
    b.cbranch(b.icmp_signed("<", i, count), body, done)
    b.position_at_end(body)

    def close():
        i.add_incoming(b.add(i, I64(step)), b.block)
        b.branch(head)
        b.position_at_end(done)

    return i, close


def splat(b, scalar, kind=F32):
    vector = ir.VectorType(kind, LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    return b.shuffle_vector(
        b.insert_element(undefined, scalar, I32(0)),
        undefined,
        ir.Constant(ir.VectorType(I32, LANES), [0] * LANES),
    )


def first_lanes(b, count):
    """Returns a mask of the first `count` lanes, of none if `count` is negative."""
    lanes = ir.Constant(ir.VectorType(I32, LANES), list(range(LANES)))
    count = b.select(b.icmp_signed("<", count, I64(LANES)), count, I64(LANES))
    return b.icmp_signed("<", lanes, splat(b, b.trunc(count, I32), I32))


def store_first(b, value, count, pointer):
    """Stores the first `count` lanes: all if `count` exceeds LANES, none if it is negative.

    Opens new blocks without AVX-512: AVX2's masked store takes a dozen cycles on some processors.
    """
    if LANES == 16:
        _store_where(b, first_lanes(b, count), value, pointer)
        return
    all_lanes, some, done = (
        b.function.append_basic_block(name) for name in ("store_all", "store_some", "stored")
    )
    b.cbranch(b.icmp_signed(">=", count, I64(LANES)), all_lanes, some)
    b.position_at_end(all_lanes)
    b.store(value, pointer, align=4)
    b.branch(done)

    b.position_at_end(some)
    count = b.select(b.icmp_signed("<", count, I64(0)), I64(0), count)
    base, left, half = b.ptrtoint(pointer, I64), value, LANES // 2
    while half:  # one store per bit of the count
        is_set = b.icmp_unsigned("!=", b.and_(count, I64(half)), I64(0))
        kind, places = ir.VectorType(F32, half), ir.VectorType(I32, half)
        low, high = (
            b.shuffle_vector(left, left, ir.Constant(places, list(range(first, first + half))))
            for first in (0, half)
        )
        with b.if_then(is_set):
            b.store(low, b.inttoptr(base, kind.as_pointer()), align=4)
        if half > 1:
            left = b.select(is_set, high, low)
            base = b.select(is_set, b.add(base, I64(4 * half)), base)
        half //= 2
    b.branch(done)
    b.position_at_end(done)


def _store_where(b, lanes, value, pointer):
    mask = ir.VectorType(ir.IntType(1), LANES)
    store = cgutils.get_or_insert_function(
        b.module,
        ir.FunctionType(ir.VoidType(), [value.type, pointer.type, I32, mask]),
        f"llvm.masked.store.v{LANES}f32.p0",
    )
    b.call(store, [value, pointer, I32(4), lanes])
