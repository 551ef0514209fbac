"""Activations, and arithmetic on two tensors."""

import math

import numpy as np

from keras_trim.inference.ir.operations.elementwise import (
    Activation,
    Binary,
    Compare,
    Select,
    Softmax,
)
from keras_trim.inference.kernels.elementwise.binary import BINARY_CODES
from keras_trim.inference.kernels.elementwise.unary import FUNCTION_CODES
from keras_trim.inference.kernels.instructions import BINARY, SOFTMAX, UNARY
from keras_trim.inference.lowering.registry import lowers
from keras_trim.inference.lowering.strided import emit_broadcast
from keras_trim.inference.program.tensors import Tensor


@lowers(Activation)
def _lower_activation(op, builder, x):
    y = Tensor(x.shape, x.layout)
    if x.size:
        builder.emit(
            UNARY, x=x, y=y, size=x.size, function=FUNCTION_CODES[op.function], a=op.a, b=op.b
        )
    return y


@lowers(Softmax)
def _lower_softmax(op, builder, x):
    x = builder.to_nhwc(x)
    y = Tensor(x.shape, "NHWC")
    if x.size:
        width = x.shape[-1]
        builder.emit(SOFTMAX, x=x, y=y, rows=x.size // width, width=width, is_log=int(op.is_log))
    return y


@lowers(Binary)
def _lower_binary(op, builder, x, y):
    shape = np.broadcast_shapes(x.shape, y.shape)
    builder.require_memory(math.prod(shape))
    if x.shape == y.shape:
        y = builder.to_nchw(y) if x.layout == "NCHW" else builder.to_nhwc(y)
        z = Tensor(shape, x.layout)
        if z.size:
            builder.emit(BINARY, x=x, y=y, out=z, size=z.size, function=BINARY_CODES[op.function])
        return z
    z = Tensor(shape, _layout(shape, x, y))
    if z.size:
        emit_broadcast(builder, BINARY_CODES[op.function], x, y, z)
    return z


def _layout(shape, *inputs):
    """Chooses NCHW if an input of the output's shape has it; the other input is smaller."""
    return "NCHW" if any(x.layout == "NCHW" and x.shape == shape for x in inputs) else "NHWC"


@lowers(Compare)
def _lower_compare(op, builder, x):
    y = Tensor(x.shape, "NHWC", "int32")
    function, number = getattr(np, op.function), op.number
    builder.host(lambda a, out: np.copyto(out, function(a, number)), [x], [y])
    return y


@lowers(Select)
def _lower_select(op, builder, condition, x, y):
    out = Tensor(np.broadcast_shapes(condition.shape, x.shape, y.shape), "NHWC")
    builder.label("NumPy")

    def select(condition, x, y, out):
        np.copyto(out, y)
        np.copyto(out, x, where=condition != 0)

    builder.host(select, [condition, x, y], [out], memory=out.size)
    return out
