"""What every operation of the engine is: plain data that knows how to become instructions."""

import abc
import dataclasses

import numpy as np

from keras_trim.inference.kernels.vector import CLIP

INFINITY = float("inf")
OPERATIONS = {}  # name in a file -> class


@dataclasses.dataclass
class Clip:
    """Bounds that the output is clipped to: ReLU is (0, inf)."""

    low: float = -INFINITY
    high: float = INFINITY

    @property
    def flag(self):
        return CLIP if self.low > -INFINITY or self.high < INFINITY else 0


class Operation(abc.ABC):
    """One kind of operation, a dataclass of numbers, strings, tuples and arrays.

    `lower(builder, *inputs)` takes `plan.Tensor`s, appends instructions to `plan.Builder` and
    returns the output `Tensor`, or several of them.
    """

    takes_integers = False  # whether its inputs may be int32
    gives = None  # Keras's dtype of its output; None: that of its inputs

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        OPERATIONS[cls.__name__] = cls

    @abc.abstractmethod
    def lower(self, builder, *inputs):
        """Appends its instructions; returns the output tensor, or several."""

    def check(self):  # noqa: B027 (an operation without numbers has nothing to check)
        """Checks what a file may have gotten wrong.

        Raises:
            ValueError: if a size or number is impossible.
        """

    def multiply_adds(self, input_shape, output_shape):
        """Multiply-adds per run, and how many of them are with weights that are not zero."""
        return 0, 0


def require(condition, message):
    """Raises ValueError unless a condition holds."""
    if not condition:
        raise ValueError(message)


def require_types(operation):
    """Raises ValueError unless each field of an operation is of the type that it is declared as.

    Numbers with a fraction may be integers, too.
    """
    for field in dataclasses.fields(operation):
        value, declared = getattr(operation, field.name), field.type
        if declared is float:
            require_number(value)
        elif declared is bool:
            require(type(value) is bool, f"{field.name} must be a boolean")
        else:
            require(isinstance(value, declared), f"{field.name} is of another type")


def require_weights(array, *shape):
    """Raises ValueError unless an array is of float32 and of a shape, in which None is any size."""
    fits = (
        isinstance(array, np.ndarray)
        and array.dtype == np.float32
        and array.ndim == len(shape)
        and all(n is None or n == size for n, size in zip(shape, array.shape, strict=True))
    )
    require(fits, f"weights must be float32 of shape {shape}")


def require_integers(values, count, least):
    """Raises ValueError unless there are `count` integers of at least `least`, and none is huge."""
    fits = (
        isinstance(values, tuple)
        and (count is None or len(values) == count)
        and all(type(n) is int and least <= n < 1 << 24 for n in values)
    )
    require(fits, f"expected {count} integers of at least {least}. Received: {values!r:.100}")


def require_padding(padding):
    """Raises ValueError unless there is a known padding for each of two axes."""
    require(isinstance(padding, tuple) and len(padding) == 2, "padding must have two axes")
    for axis in padding:
        if axis not in ("valid", "same", "causal"):
            require_integers(axis, 2, -(1 << 24))


def require_number(value):
    """Raises ValueError unless a value is a float, or an integer that is no larger than those."""
    is_number = type(value) is float or (type(value) is int and abs(value) < 1 << 63)
    require(is_number, f"expected a number. Received: {value!r:.100}")


def padding_of(padding, size, window, stride, dilation=1):
    """(output size, padding before, padding after) of one axis.

    `padding` is "valid", "same" (as TensorFlow: the odd one behind), "causal", or a pair of
    integers.
    """
    reach = (window - 1) * dilation + 1
    if padding == "same":
        output = -(-size // stride)
        total = max((output - 1) * stride + reach - size, 0)
        return output, total // 2, total - total // 2
    if padding == "valid":
        before, after = 0, 0
    elif padding == "causal":
        before, after = reach - 1, 0
    else:
        before, after = padding
    return max((size + before + after - reach) // stride + 1, 0), before, after
