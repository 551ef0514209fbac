"""Converts the arithmetic of `keras.ops`, and layers that are made of it."""

import keras
import numpy as np
from keras import layers, ops

from keras_trim.inference.frontend.converters.activation import KEEPS_NAN, add_softmax
from keras_trim.inference.frontend.converters.core import scale_channels
from keras_trim.inference.frontend.converters.registry import converts, keras_operations, only
from keras_trim.inference.ir import operations
from keras_trim.inference.ir.dtypes import is_float
from keras_trim.inference.ir.operations.strided import LARGEST_RANK

NOTHING = -0.0  # added to any number, it gives that number; 0.0 makes -0.0 positive


def add_binary(reader, function, x, y):
    """Adds `function(x, y)`; one of x and y may be an array or a number."""
    symbols = [isinstance(z, reader.symbol) for z in (x, y)]
    if not all(symbols):
        return _with_array(reader, function, x, y)
    only(max(len(x.shape), len(y.shape)) <= LARGEST_RANK, "many axes")
    # A free size other than the batch may turn out to be 1 and broadcast.
    same = len(x.shape) == len(y.shape) and all(
        a == b and (a is not None or i == 0)
        for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=True))
    )
    operation = operations.Binary(function, is_broadcast=not same)
    return reader.add(operation, [x, y], reader.name)


def _with_array(reader, function, x, y):
    is_first = isinstance(x, reader.symbol)  # x (+) array, not array (+) x
    symbol, other = (x, y) if is_first else (y, x)
    other = np.asarray(ops.convert_to_numpy(other))
    only(other.dtype.kind in "fiub" or other.dtype.name == "bfloat16", "an array of its kind")
    other = other.astype(np.float32)
    if other.size == 1 and other.ndim <= len(symbol.shape):
        unary = _with_number(function, float(other.reshape(())), is_first)
        if unary is not None:
            return reader.add(unary, [symbol], reader.name)
    channels = symbol.shape[-1]
    is_per_channel = other.ndim > 0 and other.size == channels == other.shape[-1]
    if is_per_channel and 1 < len(symbol.shape) >= other.ndim:
        scale = _per_channel(function, other.reshape(-1), is_first)
        if scale is not None:
            return scale_channels(reader, symbol, *scale)
    only(max(len(symbol.shape), other.ndim) <= LARGEST_RANK, "many axes")
    other = other.reshape((1,) * (len(symbol.shape) - other.ndim) + other.shape)
    constant = reader.add_constant(np.ascontiguousarray(other))
    inputs = [symbol, constant] if is_first else [constant, symbol]
    return reader.add(operations.Binary(function), inputs, reader.name)


def _with_number(function, number, is_first):
    """An operation on one tensor that computes the function with a number, or None."""
    infinity = float("inf")
    affine = {
        "add": (1.0, number),
        "subtract": (1.0, -number) if is_first else (-1.0, number),
        "multiply": (number, NOTHING),
        "divide": (1 / number, NOTHING) if is_first and _has_reciprocal(number) else None,
    }.get(function)
    if affine is not None:
        return operations.Activation("affine", *affine)
    if function == "divide" and not is_first:
        return operations.Activation("divided", number, NOTHING)
    if function == "maximum" and number == number:  # a clip ignores bounds that are NaN
        return operations.Activation("clip", number, infinity)
    if function == "minimum" and number == number:
        return operations.Activation("clip", -infinity, number)
    if function == "power" and is_first:
        return _POWERS.get(number, operations.Activation("power", number))
    return None


_POWERS = {
    2.0: operations.Activation("square"),
    -1.0: operations.Activation("divided", 1.0, NOTHING),
}
# Of -infinity and -0, roots and powers differ. TensorFlow replaces these powers by roots.
if keras.backend.backend() == "tensorflow":
    _POWERS |= {0.5: operations.Activation("sqrt"), -0.5: operations.Activation("rsqrt")}


def _has_reciprocal(numbers):
    """Whether all numbers have a reciprocal with all digits of a float32."""
    limits = np.finfo(np.float32)
    size = np.abs(numbers)
    return bool(np.all((size >= 1 / float(limits.max)) & (size <= 1 / float(limits.tiny))))


def _per_channel(function, array, is_first):
    """(scale, shift) that are equivalent, or None."""
    ones, nothing = np.ones_like(array), np.full_like(array, NOTHING)
    if function == "add":
        return ones, array
    if function == "subtract":
        return (ones, -array) if is_first else (-ones, array)
    if function == "multiply":
        return array, nothing
    if function == "divide" and is_first and _has_reciprocal(array):
        return 1 / array, nothing
    return None


@converts(layers.PReLU)
def _prelu(layer, reader, x):
    only(is_float(x.dtype), "integers, which may overflow")
    clip = operations.Activation("clip", 0.0, float("inf"))
    negated = reader.add(operations.Activation("affine", -1.0, 0.0), [x], reader.name)
    negated = reader.add(clip, [negated], reader.name)
    y = reader.add(clip, [x], reader.name)
    return add_binary(reader, "subtract", y, add_binary(reader, "multiply", negated, layer.alpha))


def _arithmetic(function):
    def convert(operation, reader, x, y):
        return add_binary(reader, function, x, y)

    return convert


for _names, _function in (
    (("Add",), "add"),
    (("Subtract",), "subtract"),
    (("Multiply",), "multiply"),
    (("Divide", "TrueDivide"), "divide"),
    (("Maximum",), "maximum"),
    (("Minimum",), "minimum"),
    (("Power",), "power"),
):
    converts(*keras_operations("numpy", *_names))(_arithmetic(_function))


# Unary operations -> function, and its parameters or the attributes that hold them.
_UNARY = {
    ("numpy", "Absolute"): ("abs",),
    ("numpy", "Abs"): ("abs",),
    ("numpy", "Exp"): ("exponential",),
    ("numpy", "Log"): ("log",),
    ("numpy", "Sqrt"): ("sqrt",),
    ("numpy", "Square"): ("square",),
    ("numpy", "Tanh"): ("tanh",),
    ("numpy", "Negative"): ("affine", -1.0, NOTHING),
    ("numpy", "Reciprocal"): ("divided", 1.0, NOTHING),
    ("numpy", "Clip"): ("clip", "x_min", "x_max"),
    ("math", "Rsqrt"): ("rsqrt",),
    ("nn", "Relu"): ("clip", 0.0, float("inf")),
    ("nn", "Relu6"): ("clip", 0.0, 6.0),
    ("nn", "Sigmoid"): ("sigmoid",),
    ("nn", "Silu"): ("silu",),
    ("nn", "Elu"): ("elu", "alpha"),
    ("nn", "Selu"): ("selu",),
    ("nn", "Celu"): ("celu", "alpha"),
    ("nn", "LeakyRelu"): ("leaky_relu", "negative_slope"),
    ("nn", "HardSigmoid"): ("hard_sigmoid",),
    ("nn", "HardSilu"): ("hard_silu",),
    ("nn", "HardTanh"): ("clip", -1.0, 1.0),
    ("nn", "Softplus"): ("softplus",),
    ("nn", "Softsign"): ("softsign",),
    ("nn", "LogSigmoid"): ("log_sigmoid",),
    ("nn", "TanhShrink"): ("tanh_shrink",),
    ("nn", "HardShrink"): ("hard_shrink", "threshold", KEEPS_NAN),
    ("nn", "SoftShrink"): ("soft_shrink", "threshold", KEEPS_NAN),
}


def _unary(function, *factors):
    def convert(operation, reader, x):
        values = [getattr(operation, f) if isinstance(f, str) else f for f in factors]
        only(all(isinstance(value, int | float) for value in values), "a bound that is an array")
        only(all(value == value for value in values), "a bound that is NaN")
        unary = operations.Activation(function, *map(float, values))
        return reader.add(unary, [x], reader.name)

    return convert


for (_module, _name), _how in _UNARY.items():
    converts(*keras_operations(_module, _name))(_unary(*_how))


@converts(*keras_operations("nn", "Gelu"))
def _gelu(operation, reader, x):
    function = "gelu_tanh" if operation.approximate else "gelu"
    return reader.add(operations.Activation(function), [x], reader.name)


@converts(*keras_operations("nn", "Softmax", "LogSoftmax"))
def _softmax(operation, reader, x):
    return add_softmax(reader, x, operation.axis, type(operation).__name__ == "LogSoftmax")


@converts(*keras_operations("numpy", "Where"))
def _where(operation, reader, condition, x1=None, x2=None):
    only(isinstance(condition, reader.symbol), "an array as condition")
    return reader.add(
        operations.Select(), [condition, *(_tensor(reader, x) for x in (x1, x2))], reader.name
    )


def _tensor(reader, x):
    """The symbol for a symbol, or a float32 constant for an array or number."""
    if isinstance(x, reader.symbol):
        only(is_float(x.dtype), "integers")
        return x
    only(x is not None, "indices")
    x = np.asarray(x if isinstance(x, float | int) else ops.convert_to_numpy(x), np.float32)
    return reader.add_constant(x.reshape(x.shape or (1,)))


@converts(layers.Masking)
def _masking(layer, reader, x):
    compare = operations.Compare("not_equal", float(layer.mask_value))
    seen = reader.add(compare, [x], reader.name)
    seen = reader.add(operations.Reduce("max", (len(x.shape) - 1,), True), [seen], reader.name)
    return reader.add(operations.Binary("multiply"), [x, seen], reader.name)


@converts(*keras_operations("core", "Cast"))
def _cast(operation, reader, x):
    return reader.cast(x, operation.dtype)


@converts(*keras_operations("core", "StopGradient"), *keras_operations("numpy", "Copy"))
def _identity(operation, reader, x):
    return x


@converts(*keras_operations("core", "ConvertToTensor"))
def _convert_to_tensor(operation, reader, x):
    return x if operation.dtype is None else reader.cast(x, operation.dtype)
