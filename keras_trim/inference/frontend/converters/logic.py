"""Converts comparisons and operations on truth values."""

from keras_trim.inference.frontend.converters.arithmetic import add_binary
from keras_trim.inference.frontend.converters.reductions import axes_of
from keras_trim.inference.frontend.converters.registry import converts, keras_operations, only
from keras_trim.inference.ir import operations
from keras_trim.inference.ir.dtypes import is_float


def _compare(function):
    def convert(operation, reader, x, y):
        only(isinstance(x, reader.symbol) and isinstance(y, int | float), "two tensors")
        only(is_float(x.dtype) or isinstance(y, int), "integers, which Keras rounds")
        return reader.add(operations.Compare(function, float(y)), [x], reader.name)

    return convert


for _name in ("Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"):
    _function = _name.replace("Equal", "_equal").lower().removeprefix("_")
    converts(*keras_operations("numpy", _name))(_compare(_function))


def _logical(function):
    def convert(operation, reader, x, y):
        only(all(isinstance(z, reader.symbol) for z in (x, y)), "two tensors")
        return add_logical(reader, function, x, y)

    return convert


def add_logical(reader, function, x, y):
    """Adds `x or y` ("maximum") or `x and y` ("multiply")."""
    truths = [_truths(reader, z) for z in (x, y)]
    return reader.cast(add_binary(reader, function, *truths), "bool")


def _truths(reader, x):
    """Adds the float32 numbers 1 where x is true, and 0 elsewhere."""
    if x.dtype != "bool":
        x = reader.add(operations.Compare("not_equal", 0.0), [x], reader.name)
    return reader.cast(x, "float32")


for _name, _function in (("LogicalOr", "maximum"), ("LogicalAnd", "multiply")):
    converts(*keras_operations("numpy", _name))(_logical(_function))


@converts(*keras_operations("numpy", "LogicalNot"))
def _logical_not(operation, reader, x):
    return reader.add(operations.Compare("equal", 0.0), [x], reader.name)


def _quantify(function):
    def convert(operation, reader, x):
        axes = axes_of(operation.axis, x)
        only(0 not in axes, "the axis of the batch")
        reduce = operations.Reduce(function, axes, bool(operation.keepdims))
        return reader.cast(reader.add(reduce, [_truths(reader, x)], reader.name), "bool")

    return convert


# A Functional model lists the operations that compute the mask of `Masking`, `Any` among them.
for _name, _function in (("Any", "max"), ("All", "min")):
    converts(*keras_operations("numpy", _name))(_quantify(_function))
