"""Inserts and removes gaps between the rows of a plane, a whole vector at a time.

Row by row, each of the many short rows of a small image takes a vector and part of another. AVX-512
can spread the lanes of a vector over those that a mask selects, and back. So a vector may hold the
end of one row and the beginning of the next. Masks and places are precomputed tables.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from keras_trim.inference.kernels.llvm import (
    I32,
    I64,
    LANES,
    RESIDUAL,
    Body,
    loop,
    outlined,
)

IS_AVAILABLE = LANES == 16  # with AVX-512
_I16 = ir.IntType(16)


@functools.lru_cache(maxsize=64)  # each measured candidate of a product asks
def row_tables(height, width, top, left, rows, row):
    """Locates the pixels of an image in the vectors of a plane with gaps between rows.

    Args:
        height, width: Integers, of the image.
        top, left: Integers. The row and column of the plane where the image begins; may be
            negative.
        rows, row: Integers. Rows of the plane, and floats per row.

    Returns:
        `(starts, masks)`: for each vector of the plane, int32, the first pixel of the image in it,
        and uint16, which lanes are pixels, lane 0 being the lowest bit.
    """
    vectors = -(-rows * row // LANES)
    y, x = np.divmod(np.arange(vectors * LANES), row)
    is_pixel = (y >= top) & (y < min(top + height, rows)) & (x >= left) & (x < left + width)
    pixel = (y - top) * width + x - left
    is_pixel = is_pixel.reshape(vectors, LANES)
    starts = pixel.reshape(vectors, LANES)[np.arange(vectors), is_pixel.argmax(axis=1)]
    masks = (is_pixel << np.arange(LANES)).sum(axis=1)
    return np.where(masks, starts, 0).astype(np.int32), masks.astype(np.uint16)


def _vector_function(body, name):
    mask = ir.VectorType(ir.IntType(1), LANES)
    kind = ir.FunctionType(body.vector, [body.vector, body.vector, mask])
    full_name = f"llvm.x86.avx512.mask.{name}.v{LANES}f32"
    return cgutils.get_or_insert_function(body.function.module, kind, full_name)


def _mask_at(body, masks, vector):
    """Loads the mask of a vector, as an integer and as lanes."""
    bits = body.scalar_at(masks, vector, _I16)
    return bits, body.b.bitcast(bits, ir.VectorType(ir.IntType(1), LANES))


def _with_residual(body, total, load, flags, low, high):
    """Returns `clip(total + load())` with the flag `RESIDUAL`, else `total`, already clipped."""
    b = body.b
    before = b.block
    add, added = body.blocks("add", "added")
    b.cbranch(body.has(flags, RESIDUAL), add, added)
    b.position_at_end(add)
    (clipped,) = body.clipped([b.fadd(total, load())], flags, low, high)
    last = b.block
    b.branch(added)
    b.position_at_end(added)
    (total,) = body.merge(before, [total], last, [clipped])
    return total


@functools.cache
def expand_rows():
    """Makes `kernel(y, x, starts, masks, vectors, value)`: inserts gaps between rows of an image.

    Addresses: `y`, float32, whole vectors, with `value` where there is no pixel; `x`, float32, read
    up to LANES floats past its end; `starts` and `masks` as `row_tables` makes them.
    """

    def build(function):
        body = Body(function)
        b = body.b
        y, x, starts, masks, vectors, value = function.args
        expand = _vector_function(body, "expand")
        values = body.splat(value)
        vector, close = loop(b, vectors, 1)
        _, mask = _mask_at(body, masks, vector)
        start = b.sext(body.scalar_at(starts, vector, I32), I64)
        loaded = body.load(b.add(x, b.shl(start, I64(2))))
        body.store(b.call(expand, [loaded, values, mask]), b.add(y, b.shl(vector, I64(6))))
        close()
        b.ret_void()

    operands = (*(types.intp,) * 4, types.int64, types.float32)
    return outlined("expand_rows", operands, build)


@functools.cache
def compress_rows():
    """Makes `kernel(y, sums, residual, starts, masks, vectors, flags, low, high)`.

    It writes the pixels among `sums` without gaps, with the flag `RESIDUAL` those of
    `clip(sums + residual)`.

    Addresses: `y`, float32, of which only pixels are written; `sums`, float32, whole vectors;
    `residual`, float32, laid out as y, read up to LANES floats past its end; `starts` and `masks`
    as `row_tables` makes them.
    """

    def build(function):
        body = Body(function)
        b = body.b
        y, sums, residual, starts, masks, vectors, flags, low, high = function.args
        zeros = ir.Constant(body.vector, [0.0] * LANES)
        expand, compress = (_vector_function(body, name) for name in ("expand", "compress"))
        count_ones = b.module.declare_intrinsic("llvm.ctpop", [_I16])
        vector, close = loop(b, vectors, 1)
        bits, mask = _mask_at(body, masks, vector)
        start = b.shl(b.sext(body.scalar_at(starts, vector, I32), I64), I64(2))
        total = body.load(sums, b.shl(vector, I64(6)))
        total = _with_residual(
            body, total, lambda: b.call(expand, [body.load(residual, start), zeros, mask]),
            flags, low, high,
        )  # fmt: skip
        count = b.zext(b.call(count_ones, [bits]), I64)
        body.store_first(b.call(compress, [total, zeros, mask]), count, b.add(y, start))
        close()
        b.ret_void()

    operands = (*(types.intp,) * 5, types.int64, types.int64, types.float32, types.float32)
    return outlined("compress_rows", operands, build)
