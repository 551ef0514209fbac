"""Dense layers."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels import lookup
from keras_trim.inference.kernels.matvec import DENSE_VECTORS
from keras_trim.inference.kernels.vector import LANES
from keras_trim.inference.operations.base import (
    Operation,
    require,
    require_integers,
    require_number,
    require_weights,
)
from keras_trim.inference.operations.convolution import INFINITY, Clip, emit_product
from keras_trim.inference.packing import Columns
from keras_trim.inference.plan import Tensor, round_up

FEW_ROWS = 3  # up to here each row is a product of its own, as reading the weights is not the limit
_LARGEST_SHORT = 1 << 16


@dataclasses.dataclass
class Dense(Operation):
    """y = clip(x @ kernel + bias), over the last axis of x.

    Args:
        kernel: Array, float32, (inputs, outputs).
        bias: Array, float32, (outputs,).
        low, high: Floats. What the output is clipped to.
    """

    kernel: np.ndarray
    bias: np.ndarray
    low: float = -INFINITY
    high: float = INFINITY

    def check(self):
        require_weights(self.kernel, None, None)
        require_integers(self.kernel.shape, 2, 1)
        require_weights(self.bias, self.kernel.shape[1])
        require_number(self.low)
        require_number(self.high)

    def lower(self, builder, x):
        inputs, outputs = self.kernel.shape
        require(len(x.shape) >= 2 and x.channels == inputs, "a dense layer's inputs")
        clip = Clip(self.low, self.high)
        shape = (*x.shape[:-1], outputs)
        if x.layout == "planes" and x.pixels > FEW_ROWS and x.size and outputs:
            y = Tensor(shape, "planes")
            columns = Columns.of_matrix(self.kernel, x.plane, builder.skip_zeros)
            emit_product(builder, columns, self.bias, x, y, x.pixels, 0, (x.pixels, 1), clip)
            return y
        x = builder.rows(x)
        num_rows = int(np.prod(x.shape[:-1]))
        if num_rows * outputs == 0:
            return Tensor(shape, "rows")
        if num_rows <= FEW_ROWS:
            y = Tensor(shape, "rows")
            emit_row_product(builder, self.kernel, self.bias, x, y, num_rows, clip)
            return y
        return self._on_columns(builder, x, shape, num_rows, clip)

    def _on_columns(self, builder, x, shape, num_rows, clip):
        """The product over rows as pixels: one weight serves many of them."""
        inputs, outputs = self.kernel.shape
        plane = round_up(num_rows)
        transposed, sums = Tensor((inputs, plane), "rows"), Tensor((outputs, plane), "rows")
        y = Tensor(shape, "rows")
        builder.emit("transpose", [x, transposed, 1, 0, 0, num_rows, inputs, inputs, plane])
        as_planes = Tensor((1, num_rows, outputs), "planes")
        sums.plane, sums.shape = plane, as_planes.shape
        sums.layout = "planes"
        columns = Columns.of_matrix(self.kernel, plane, builder.skip_zeros)
        emit_product(
            builder, columns, self.bias, transposed, sums, num_rows, 0, (num_rows, 1), clip
        )
        builder.emit("transpose", [sums, y, 1, 0, 0, outputs, num_rows, plane, outputs])
        return y

    def multiply_adds(self, output_shape):
        rows = int(np.prod(output_shape[:-1]))
        return rows * self.kernel.size, rows * int(np.count_nonzero(self.kernel))


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


def emit_row_product(builder, kernel, bias, x, y, num_rows, clip=Clip()):  # noqa: B008
    """Emits `y = clip(x @ kernel + bias)` for few rows."""
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

    candidates = ["dense_rows"]
    if inputs <= _LARGEST_SHORT and builder.skip_zeros:
        candidates += ["sparse_rows"] + ["lookup_rows"] * lookup.IS_AVAILABLE
    opcode = builder.tuner.fastest(
        candidates,
        emit,
        likeness=("rows", num_rows, kernel.shape, round(20 * np.mean(kernel != 0))),
    )
    builder.choose(opcode.replace("_", " "))
    emit(opcode, builder)
