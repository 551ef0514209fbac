"""Dense layers."""

import numpy as np

from keras_trim.inference.ir.operations.dense import Dense
from keras_trim.inference.ir.validation import require
from keras_trim.inference.kernels.instructions import TRANSPOSE
from keras_trim.inference.lowering.clip import Clip
from keras_trim.inference.lowering.packing import SparseColumns
from keras_trim.inference.lowering.registry import lowers
from keras_trim.inference.lowering.spmm import emit_pointwise, emit_spmm
from keras_trim.inference.lowering.spmv import FEW_ROWS, emit_spmv
from keras_trim.inference.program.tensors import Tensor


@lowers(Dense)
def _lower_dense(op, builder, x):
    inputs, outputs = op.kernel.shape
    require(len(x.shape) >= 2 and x.channels == inputs, "a dense layer's inputs")
    clip = Clip(op.low, op.high)
    shape = (*x.shape[:-1], outputs)
    if x.layout == "NCHW" and x.pixels > FEW_ROWS and x.size and outputs:
        y = Tensor(shape, "NCHW")
        emit_pointwise(builder, op.kernel, op.bias, x, y, clip)
        return y
    x = builder.to_nhwc(x)
    num_rows = int(np.prod(x.shape[:-1]))
    if num_rows * outputs == 0:
        return Tensor(shape, "NHWC")
    if num_rows <= FEW_ROWS:
        y = Tensor(shape, "NHWC")
        emit_spmv(builder, op.kernel, op.bias, x, y, num_rows, clip)
        return y
    return _on_columns(op, builder, x, shape, num_rows, clip)


def _on_columns(op, builder, x, shape, num_rows, clip):
    """Emits the product with rows as pixels, so that each weight serves many rows."""
    inputs, outputs = op.kernel.shape
    transposed = Tensor((1, num_rows, inputs), "NCHW")
    sums = Tensor((1, num_rows, outputs), "NCHW")
    plane, y = sums.plane, Tensor(shape, "NHWC")
    builder.emit(
        TRANSPOSE, x=x, y=transposed, batch=1, x_sample=0, y_sample=0, rows=num_rows,
        columns=inputs, x_row=inputs, y_row=plane,
    )  # fmt: skip
    columns = SparseColumns.of_matrix(op.kernel, plane, builder.skip_zeros)
    emit_spmm(builder, columns, op.bias, transposed, sums, num_rows, 0, (num_rows, 1), clip)
    builder.emit(
        TRANSPOSE, x=sums, y=y, batch=1, x_sample=0, y_sample=0, rows=outputs, columns=num_rows,
        x_row=plane, y_row=outputs,
    )  # fmt: skip
    return y
