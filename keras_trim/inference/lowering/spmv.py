"""SpMV: products of weights with a few rows of activations."""

import numpy as np

from keras_trim.inference.kernels.instructions import GEMV, SPMV_CSR, SPMV_SELL
from keras_trim.inference.kernels.llvm import LANES
from keras_trim.inference.kernels.spmv import sell
from keras_trim.inference.kernels.spmv.csr import DENSE_VECTORS
from keras_trim.inference.lowering.autotuning import select
from keras_trim.inference.lowering.clip import Clip
from keras_trim.inference.lowering.spmm_candidates import tries_sparse
from keras_trim.inference.program.tensors import round_up

FEW_ROWS = 3  # most rows to multiply one by one: reading the weights again does not limit these
_LARGEST_SHORT = 1 << 16
_INSTRUCTIONS = {
    "dense rows": GEMV,
    "sparse rows, CSR": SPMV_CSR,
    "sparse rows, SELL": SPMV_SELL,
}


def csr_matrix(builder, matrix):
    """Adds `matrix`, (rows, columns), to the constants in CSR; returns the operands for it.

    Raises:
        ValueError: if column numbers do not fit 16 bits.
    """
    if matrix.shape[1] > _LARGEST_SHORT:
        raise ValueError(f"At most 65,536 columns. Received: matrix.shape={matrix.shape}")
    rows, columns = np.nonzero(matrix if builder.skip_zeros else np.ones_like(matrix))
    starts = np.searchsorted(rows, np.arange(matrix.shape[0] + 1))
    return {
        "starts": builder.index(starts),
        "columns": builder.short_index(columns),
        "values": builder.constant(matrix[rows, columns]),
    }


def _dense_vectors(outputs):
    """Chooses how many vectors of outputs to sum at once: few blocks, and little excess."""

    def cost(vectors):
        return -(-outputs // (vectors * LANES)) * (vectors + 1)

    return min(DENSE_VECTORS, key=cost)


def sell_matrix(builder, matrix):
    """Adds `matrix`, (rows, columns), to the constants in SELL; returns the operands for it."""
    padded = round_up(matrix.shape[0], sell.ROWS)
    rows, columns = np.nonzero(matrix)
    starts = np.searchsorted(rows, np.arange(padded + 1))
    num_vectors = -(-matrix.shape[1] // LANES)
    packed = sell.schedule(starts, columns, matrix[rows, columns], num_vectors)
    starts, vectors, lanes, values = packed
    return {
        "starts": builder.index(starts),
        "columns": builder.short_index(vectors),
        "values": builder.constant(values),
        "lanes": builder.short_index(lanes.view(np.uint16)),
    }


def emit_spmv(
    builder, kernel, bias, x, y, num_rows, clip=Clip(), is_repeated=False  # noqa: B008
):  # fmt: skip
    """Emits `y = clip(x @ kernel + bias)` for few rows; `is_repeated` as for `Tuner.benchmark`."""
    inputs, outputs = kernel.shape
    vectors = _dense_vectors(outputs)
    padding = -outputs % (vectors * LANES)

    def emit(name, builder):
        if name == "dense rows":
            blocks = np.pad(kernel, ((0, 0), (0, padding))).reshape(inputs, -1, vectors * LANES)
            weights = {"values": builder.constant(blocks.swapaxes(0, 1))}
        elif name == "sparse rows, CSR":
            weights = csr_matrix(builder, kernel.T)
        else:
            weights = sell_matrix(builder, kernel.T)
        builder.emit(
            _INSTRUCTIONS[name], x=x, x_row=inputs, y=y, y_row=outputs, batch=num_rows,
            outputs=outputs, **weights, bias=builder.constant(np.pad(bias, (0, padding))),
            flags=clip.flag, inputs=inputs, vectors=vectors, low=clip.low, high=clip.high,
        )  # fmt: skip

    density = np.mean(kernel != 0)
    candidates = ["dense rows"]
    can_skip = inputs <= _LARGEST_SHORT and builder.skip_zeros
    if can_skip and tries_sparse(density):
        candidates += ["sparse rows, CSR"] + ["sparse rows, SELL"] * sell.IS_AVAILABLE
    workload = "spmv", num_rows, kernel.shape, round(20 * density)
    name, _ = select(builder, candidates, emit, workload, x, is_repeated)
    builder.label(name)
