"""Products of weights with single rows (SpMV, GEMV), limited by reading the weights."""

import numpy as np

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.instructions import GEMV, SPMV_CSR, SPMV_SELL, executes
from keras_trim.inference.kernels.llvm import CLIP, LANES
from keras_trim.inference.kernels.spmv.csr import DENSE_VECTORS, csr_dots, dense_dots
from keras_trim.inference.kernels.spmv.sell import IS_AVAILABLE, ROWS, sell_dots
from keras_trim.inference.kernels.switch import switch
from keras_trim.inference.kernels.work_sharing import share

AT = SPMV_CSR.at  # the same for all three instructions

_F = np.float32

_csr_dots = csr_dots()
_sell_dots = sell_dots() if IS_AVAILABLE else None
_dense_dots = switch(
    "x, weights, inputs, y, left, bias, flags, low, high",
    {vectors: dense_dots(vectors) for vectors in DENSE_VECTORS},
)


@inner
def _share_stretches(starts, count, thread, num_threads):
    """Returns the range of stretches that a thread computes, balanced by their total length.

    Args:
        starts: Array of int32, (at least count + 1,). Where each stretch of weights begins.
        count: Integer.
    """
    first, last = share(starts[count], thread, num_threads)
    begin = np.searchsorted(starts[:count], first) if thread else 0
    end = np.searchsorted(starts[:count], last) if thread < num_threads - 1 else count
    return begin, end


@executes(SPMV_CSR)
@inner
def spmv_csr(p, f, arena, constants, index, short_index, thread, num_threads):
    """y[n, o] = clip(weights[o, :] . x[n, :] + bias[o]) for CSR weights.

    Threads share out the rows of weights by number of non-zeros.
    """
    outputs, starts = p[AT.outputs], p[AT.starts]
    begin, end = _share_stretches(index[starts:], outputs, thread, num_threads)
    for n in range(p[AT.batch]):
        _csr_dots(
            arena.ctypes.data + 4 * (p[AT.x] + n * p[AT.x_row]),
            short_index.ctypes.data + 2 * p[AT.columns],
            constants.ctypes.data + 4 * p[AT.values],
            index.ctypes.data + 4 * (starts + begin),
            end - begin,
            arena.ctypes.data + 4 * (p[AT.y] + n * p[AT.y_row] + begin),
            constants.ctypes.data + 4 * (p[AT.bias] + begin),
            p[AT.flags], f[AT.low], f[AT.high],
        )  # fmt: skip


@inner
def spmv_sell(p, f, arena, constants, index, short_index, thread, num_threads):
    """The same for SELL weights, packed for `sell_dots`."""
    outputs, starts = p[AT.outputs], p[AT.starts]
    groups = (outputs + ROWS - 1) // ROWS
    begin, end = _share_stretches(index[starts:], groups, thread, num_threads)
    for n in range(p[AT.batch]):
        _sell_dots(
            arena.ctypes.data + 4 * (p[AT.x] + n * p[AT.x_row]),
            short_index.ctypes.data + 2 * p[AT.columns],
            short_index.ctypes.data + 2 * p[AT.lanes],
            constants.ctypes.data + 4 * p[AT.values],
            index.ctypes.data + 4 * (starts + begin),
            end - begin,
            arena.ctypes.data + 4 * (p[AT.y] + n * p[AT.y_row] + begin * ROWS),
            constants.ctypes.data + 4 * (p[AT.bias] + begin * ROWS),
            outputs - begin * ROWS,
            p[AT.flags], f[AT.low], f[AT.high],
        )  # fmt: skip


if IS_AVAILABLE:
    executes(SPMV_SELL)(spmv_sell)


@executes(GEMV)
@inner
def gemv(p, f, arena, constants, thread, num_threads):
    """The same for dense weights, in blocks of `vectors` vectors of outputs."""
    width = p[AT.vectors] * LANES
    begin, end = share((p[AT.outputs] + width - 1) // width, thread, num_threads)
    for block in range(begin, end):
        start = block * width
        weights = constants.ctypes.data + 4 * (p[AT.values] + start * p[AT.inputs])
        bias = constants.ctypes.data + 4 * (p[AT.bias] + start)
        for n in range(p[AT.batch]):
            x = arena.ctypes.data + 4 * (p[AT.x] + n * p[AT.x_row])
            y = arena.ctypes.data + 4 * (p[AT.y] + n * p[AT.y_row] + start)
            _dense_dots(
                p[AT.vectors], x, weights, p[AT.inputs], y, p[AT.outputs] - start, bias,
                p[AT.flags] & CLIP, f[AT.low], f[AT.high],
            )  # fmt: skip
