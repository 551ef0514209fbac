"""Dense layers."""

import dataclasses

import numpy as np

from keras_trim.inference.operations.base import (
    INFINITY,
    Clip,
    Operation,
    require,
    require_integers,
    require_number,
    require_weights,
)
from keras_trim.inference.operations.plane_products import emit_pointwise, emit_product
from keras_trim.inference.operations.row_products import FEW_ROWS, emit_row_product
from keras_trim.inference.packing import Columns
from keras_trim.inference.tensors import Tensor


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
            emit_pointwise(builder, self.kernel, self.bias, x, y, clip)
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
        transposed = Tensor((1, num_rows, inputs), "planes")
        sums = Tensor((1, num_rows, outputs), "planes")
        plane, y = sums.plane, Tensor(shape, "rows")
        builder.emit("transpose", [x, transposed, 1, 0, 0, num_rows, inputs, inputs, plane])
        columns = Columns.of_matrix(self.kernel, plane, builder.skip_zeros)
        emit_product(
            builder, columns, self.bias, transposed, sums, num_rows, 0, (num_rows, 1), clip
        )
        builder.emit("transpose", [sums, y, 1, 0, 0, outputs, num_rows, plane, outputs])
        return y

    def multiply_adds(self, input_shape, output_shape):
        rows = int(np.prod(output_shape[:-1]))
        return rows * self.kernel.size, rows * int(np.count_nonzero(self.kernel))
