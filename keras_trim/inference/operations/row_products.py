"""Instructions for products of weights with a few rows of activations."""

import numpy as np

from keras_trim.inference.kernels import lookup
from keras_trim.inference.kernels.matvec import DENSE_VECTORS
from keras_trim.inference.kernels.vector import LANES
from keras_trim.inference.operations.base import Clip
from keras_trim.inference.tensors import round_up

FEW_ROWS = 3  # up to here each row is a product of its own, as reading the weights is not the limit
_LARGEST_SHORT = 1 << 16


def sparse_matrix(builder, matrix):
    """Compressed rows of `matrix`, (rows, columns): the places of starts, columns and values.

    Raises:
        ValueError: if columns cannot be counted in 16 bits.
    """
    if matrix.shape[1] > _LARGEST_SHORT:
        raise ValueError(f"At most 65,536 columns. Received: matrix.shape={matrix.shape}")
    rows, columns = np.nonzero(matrix if builder.skip_zeros else np.ones_like(matrix))
    starts = np.searchsorted(rows, np.arange(matrix.shape[0] + 1))
    return (
        builder.index(starts),
        builder.short_index(columns),
        builder.constant(matrix[rows, columns]),
    )


def _dense_vectors(outputs):
    """Vectors of outputs to sum at once: few blocks, and little beyond the last output."""

    def cost(vectors):
        return -(-outputs // (vectors * LANES)) * (vectors + 1)

    return min(DENSE_VECTORS, key=cost)


def lookup_matrix(builder, matrix):
    """`matrix`, (rows, columns), in slots: the places of starts, vectors, values and lanes."""
    padded = round_up(matrix.shape[0], lookup.ROWS)
    rows, columns = np.nonzero(matrix)
    starts = np.searchsorted(rows, np.arange(padded + 1))
    num_vectors = -(-matrix.shape[1] // LANES)
    packed = lookup.schedule(starts, columns, matrix[rows, columns], num_vectors)
    starts, vectors, lanes, values = packed
    return (
        builder.index(starts),
        builder.short_index(vectors),
        builder.constant(values),
        builder.short_index(lanes.view(np.uint16)),
    )


def emit_row_product(
    builder, kernel, bias, x, y, num_rows, clip=Clip(), is_repeated=False  # noqa: B008
):  # fmt: skip
    """Emits `y = clip(x @ kernel + bias)` for few rows; `is_repeated` as `Tuner.fastest` has it."""
    inputs, outputs = kernel.shape
    vectors = _dense_vectors(outputs)
    padding = -outputs % (vectors * LANES)

    def emit(opcode, builder):
        if opcode == "dense_rows":
            blocks = np.pad(kernel, ((0, 0), (0, padding))).reshape(inputs, -1, vectors * LANES)
            weights = 0, 0, builder.constant(blocks.swapaxes(0, 1)), 0
        elif opcode == "sparse_rows":
            weights = *sparse_matrix(builder, kernel.T), 0
        else:
            weights = lookup_matrix(builder, kernel.T)
        *weights, lanes = weights
        operands = [
            x, inputs, y, outputs, num_rows, outputs, *weights,
            builder.constant(np.pad(bias, (0, padding))), clip.flag, inputs, vectors, lanes,
        ]  # fmt: skip
        builder.emit(opcode, operands, [clip.low, clip.high])

    density = np.mean(kernel != 0)
    candidates = ["dense_rows"]
    can_skip = inputs <= _LARGEST_SHORT and builder.skip_zeros
    if can_skip and builder.tuner.tries_sparse(density):
        candidates += ["sparse_rows"] + ["lookup_rows"] * lookup.IS_AVAILABLE
    opcode = builder.tuner.fastest(
        candidates,
        emit,
        likeness=("rows", num_rows, kernel.shape, round(20 * density)),
        x=x,
        num_threads=builder.num_threads,
        is_repeated=is_repeated,
    )
    builder.choose(opcode.replace("_", " "))
    emit(opcode, builder)
