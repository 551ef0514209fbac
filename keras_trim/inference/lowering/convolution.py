"""1-D and 2-D convolutions of any kernel size, stride, padding, dilation and number of groups."""

import dataclasses
import math

import numpy as np

from keras_trim.inference.ir.operations.convolution import Convolution
from keras_trim.inference.ir.validation import require
from keras_trim.inference.kernels.instructions import IM2COL
from keras_trim.inference.kernels.llvm import LANES
from keras_trim.inference.lowering.autotuning import select
from keras_trim.inference.lowering.clip import Clip
from keras_trim.inference.lowering.geometry import Geometry, output_tensor
from keras_trim.inference.lowering.kn2row import emit_kn2row, fits_kn2row
from keras_trim.inference.lowering.packing import SparseColumns
from keras_trim.inference.lowering.registry import lowers
from keras_trim.inference.lowering.spmm import emit_pointwise, emit_spmm
from keras_trim.inference.lowering.spmm_candidates import tries_sparse
from keras_trim.inference.lowering.spmv import FEW_ROWS, emit_spmv
from keras_trim.inference.program.tensors import Tensor


@lowers(Convolution)
def _lower_convolution(op, builder, x, residual=None, *, out=None):
    channels = op.kernel.shape[2] * op.groups
    require(len(x.shape) in (3, 4) and x.channels == channels, "a convolution's channels")
    require((residual is not None) == bool(op.residual), "a convolution's residual")
    clip = Clip(op.low, op.high)
    geometry = Geometry(x, op.window, op.strides, op.dilation, op.padding, op.input_dilation)
    is_pointwise = geometry.is_pointwise and op.input_dilation == (1, 1)
    is_product = is_pointwise and op.groups == 1
    is_free = residual is None and out is None
    if is_product and is_free and x.layout == "NHWC" and 0 < x.batch * x.pixels <= FEW_ROWS:
        # Such as the single pixel after global pooling.
        y = Tensor((*x.shape[:-1], op.kernel.shape[3]), "NHWC")
        emit_spmv(builder, op.kernel[0, 0], op.bias, x, y, x.batch * x.pixels, clip)
        return y
    if not geometry.can_split(builder):
        x = builder.to_nchw(x)
        geometry = dataclasses.replace(geometry, x=x)
    y = output_tensor(x, geometry, op.kernel.shape[3])
    if out is not None:
        require(out.shape == y.shape, "an output of another shape")
        y = out
    if y.size == 0:
        return y
    if residual is not None:
        require(residual.shape == y.shape, "a residual of another shape")
        residual = builder.to_nchw(residual)
    if is_product:
        emit_pointwise(builder, op.kernel[0, 0], op.bias, x, y, clip, residual)
        return y
    candidates = {"grouped": _grouped} if is_pointwise else {"padded": _padded}
    # Sums between two rows are wasted, and have to be left out of each output.
    is_gapped = geometry.row != geometry.out_width and geometry.out_width % LANES
    columns = op.kernel[..., 0].size
    if is_gapped and op.groups == 1 and columns <= op.kernel.shape[3]:
        candidates["im2col"] = _im2col
    if geometry.is_copied and geometry.can_mask and x.layout == "NCHW":
        candidates["masked"] = _masked

    is_sparse = tries_sparse(np.mean(op.kernel != 0))
    if is_sparse and op.groups == 1 and fits_kn2row(geometry.in_vectors()):
        candidates["kn2row"] = _kn2row

    def emit(candidate, builder):
        candidates[candidate](op, builder, geometry, x, y, clip, residual)

    workload = (
        "convolution", op.kernel.shape, round(20 * np.mean(op.kernel != 0)), x.shape, x.layout,
        op.strides, op.padding, op.dilation, op.input_dilation, residual is not None,
    )  # fmt: skip
    select(builder, list(candidates), emit, workload, x)
    return y


def _grouped(op, builder, geometry, x, y, clip, residual):
    """Emits a pointwise product of groups of channels."""
    no_shift = np.zeros(1, np.int64)
    columns = SparseColumns.of_kernel(op.kernel, op.groups, x.plane, no_shift, builder.skip_zeros)
    size = geometry.out_width, geometry.out_height
    emit_spmm(builder, columns, op.bias, x, y, x.pixels, 0, size, clip, residual)


def _padded(op, builder, geometry, x, y, clip, residual):
    """Emits a product whose columns are shifted copies of the padded input."""
    padded, channel = geometry.pad(builder)
    row = 0 if geometry.row == geometry.out_width else geometry.row
    pixels = (geometry.out_height - 1) * geometry.row + geometry.out_width
    columns = SparseColumns.of_kernel(
        op.kernel, op.groups, channel, geometry.tap_offsets(), builder.skip_zeros
    )
    size = geometry.out_width, geometry.out_height
    emit_spmm(builder, columns, op.bias, padded, y, pixels, row, size, clip, residual)


def _masked(op, builder, geometry, x, y, clip, residual):
    """Emits a product whose columns are shifted copies of the unpadded input."""
    shifts, masks = geometry.masked()
    columns = SparseColumns.of_kernel(
        op.kernel, op.groups, x.plane, shifts, builder.skip_zeros, masks
    )
    size = geometry.out_width, geometry.out_height
    emit_spmm(builder, columns, op.bias, x, y, math.prod(size), 0, size, clip, residual)


def _kn2row(op, builder, geometry, x, y, clip, residual):
    """Emits a product whose sums move along lines that are whole vectors."""
    lines = geometry.in_vectors()
    emit_kn2row(builder, op.kernel, op.bias, lines, y, clip, residual)


def _im2col(op, builder, geometry, x, y, clip, residual):
    """Emits im2col and a product with its result, on planes without gaps."""
    padded, channel = geometry.pad(builder)
    taps, inputs, outputs = math.prod(op.kernel.shape[:2]), *op.kernel.shape[2:]
    unfolded = Tensor((*y.shape[:-1], inputs * taps), "NCHW")
    builder.emit(
        IM2COL, x=padded, x_sample=padded.sample_size, x_plane=channel,
        y=unfolded, y_sample=unfolded.sample_size, y_plane=unfolded.plane,
        batch=x.batch, channels=inputs, height=geometry.rows, width=geometry.row,
        out_height=geometry.out_height, out_width=geometry.out_width, taps=taps,
        offsets=builder.index(geometry.tap_offsets()),
    )  # fmt: skip
    matrix = op.kernel.reshape(taps, inputs, outputs).swapaxes(0, 1).reshape(-1, outputs)
    emit_pointwise(builder, matrix, op.bias, unfolded, y, clip, residual)
