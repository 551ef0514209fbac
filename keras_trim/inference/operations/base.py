"""What every operation of the engine is: plain data that knows how to become instructions."""

import dataclasses

import numpy as np

OPERATIONS = {}  # name in a file -> class


class Operation:
    """One kind of operation, a dataclass of numbers, strings, tuples and arrays.

    `lower(builder, *inputs)` takes `plan.Tensor`s, appends instructions to `plan.Builder` and returns
    the output `Tensor`, or several of them.
    """

    takes_integers = False  # whether its inputs may be int32; its output is then of their dtype

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        OPERATIONS[cls.__name__] = cls

    def lower(self, builder, *inputs):
        raise NotImplementedError

    def arrays(self):
        """Its weights by name."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if isinstance(getattr(self, field.name), np.ndarray)
        }

    def multiply_adds(self, *output_shapes):
        """Multiply-adds per run, and how many of them are with weights that are not zero."""
        return 0, 0


def padding_of(padding, size, window, stride, dilation=1):
    """(output size, padding before, padding after) of one axis.

    `padding` is "valid", "same" (as TensorFlow: the odd one behind), "causal", or a pair of integers.
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
