"""Converts reductions over axes other than the batch's."""

from keras_trim.inference.frontend.converters.arithmetic import add_binary
from keras_trim.inference.frontend.converters.registry import converts, keras_operations, only
from keras_trim.inference.ir import operations
from keras_trim.inference.ir.dtypes import is_float


@converts(*keras_operations("numpy", "Mean", "Max", "Min", "Sum"))
def _reduce(operation, reader, x):
    only(getattr(operation, "initial", None) is None, "its axes")
    axes = axes_of(operation.axis, x)
    return _add(reader, type(operation).__name__.lower(), x, axes, bool(operation.keepdims))


def axes_of(axes, x):
    """Tuple of integers: the axes of a reduction, sorted."""
    only(axes is not None, "its axes")
    rank = len(x.shape)
    return tuple(sorted(axis % rank for axis in axes))


def _add(reader, function, x, axes, keepdims):
    rank = len(x.shape)
    if axes == tuple(range(1, rank - 1)) and rank > 2 and function in ("mean", "max"):
        return reader.add(operations.GlobalPool(function == "max", keepdims), [x], reader.name)
    return reader.add(operations.Reduce(function, axes, keepdims), [x], reader.name)


@converts(*keras_operations("numpy", "Var", "Std"))
def _deviation(operation, reader, x):
    axes = axes_of(operation.axis, x)
    y = _add_variance(reader, x, axes, bool(operation.keepdims))
    if type(operation).__name__ == "Std":
        y = reader.add(operations.Activation("sqrt"), [y], reader.name)
    return y


@converts(*keras_operations("nn", "Moments"))
def _moments(operation, reader, x):
    axes, keepdims = axes_of(operation.axes, x), bool(operation.keepdims)
    mean = _add(reader, "mean", x, axes, keepdims)
    return mean, _add_variance(reader, x, axes, keepdims)


def _add_variance(reader, x, axes, keepdims):
    only(is_float(x.dtype) and 0 not in axes, "its axes or dtype")
    centered = add_binary(reader, "subtract", x, _add(reader, "mean", x, axes, True))
    squares = reader.add(operations.Activation("square"), [centered], reader.name)
    return _add(reader, "mean", squares, axes, keepdims)
