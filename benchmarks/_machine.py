"""Measures the machine's limits: multiply-adds in registers, and memory bandwidth."""

import threading
import time

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from keras_trim.inference.kernels.llvm import LANES

_CHAINS = 12  # independent sums: more than latency times units on any CPU we use
_STEPS = 1_000_000
_STREAM = 1 << 28  # bytes, far more than any cache


@intrinsic
def _multiply_add_loop(typing_context, steps, factor):
    """Computes x = x * factor + factor per step in `_CHAINS` vectors, and returns their sum."""

    def codegen(context, builder, signature, arguments):
        steps, factor = arguments
        vector = ir.VectorType(ir.FloatType(), LANES)
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{LANES}f32"
        )
        splat = ir.Constant(vector, ir.Undefined)
        for lane in range(LANES):
            splat = builder.insert_element(splat, factor, ir.IntType(32)(lane))
        before = builder.block
        loop = builder.append_basic_block("loop")
        after = builder.append_basic_block("after")
        builder.branch(loop)
        builder.position_at_end(loop)
        i = builder.phi(steps.type)
        sums = [builder.phi(vector) for _ in range(_CHAINS)]
        results = [builder.call(fma, [x, splat, splat]) for x in sums]
        following = builder.add(i, steps.type(1))
        i.add_incoming(steps.type(0), before)
        i.add_incoming(following, loop)
        for number, (x, result) in enumerate(zip(sums, results, strict=True)):
            x.add_incoming(ir.Constant(vector, [float(number)] * LANES), before)
            x.add_incoming(result, loop)
        builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
        builder.position_at_end(after)
        total = results[0]
        for result in results[1:]:
            total = builder.fadd(total, result)
        return builder.extract_element(total, ir.IntType(32)(0))

    return types.float32(types.int64, types.float32), codegen


@njit(nogil=True)
def _multiply_add(steps, factor):
    return _multiply_add_loop(steps, factor)


@njit(nogil=True, fastmath=True)
def _sum(x):
    total = np.float32(0)
    for i in range(x.size):
        total += x[i]
    return total


@njit(nogil=True)
def _copy(x, y):
    y[:] = x


def measure(num_threads):
    """Returns a dict: `flops`, `read_bytes`, `copy_bytes` per second, the best of several runs."""
    arrays = [
        [np.ones(_STREAM // 4 // num_threads, np.float32) for _ in range(2)]
        for _ in range(num_threads)
    ]
    factor = np.float32(0.5)
    flops = 2 * num_threads * _STEPS * _CHAINS * LANES
    moved = sum(x.nbytes for x, _ in arrays)
    return {
        "flops": flops / _best([lambda: _multiply_add(_STEPS, factor)] * num_threads),
        "read_bytes": moved / _best([lambda x=x: _sum(x) for x, _ in arrays]),
        "copy_bytes": 2 * moved / _best([lambda x=x, y=y: _copy(x, y) for x, y in arrays]),
    }


def _best(functions, rounds=10):
    """Returns the shortest time to run all functions, each in its own thread."""
    for function in functions:
        function()
    best = float("inf")
    for _ in range(rounds):
        threads = [threading.Thread(target=function) for function in functions]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = min(best, time.perf_counter() - start)
    return best
