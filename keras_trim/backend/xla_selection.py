"""The selection for XLA, by which JAX and TensorFlow compile it: all passes in one loop.

Each pass counts three candidates, and so fixes two bits at once.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from keras import ops

from keras_trim.backend.float_bits import integer_type

# For any size: what is the same for all weights is compiled once.
_TIE_BITS = 31


class Primitives(NamedTuple):
    """What Keras has no operation for.

    Args:
        magnitude_bits: Function, see `keras_trim.selection`.
        barrier: Function, list of tensors -> the same ones, which XLA takes for unknown.
        count: Function, list of bool tensors of one shape -> list of scalar int32 tensors: how many
            are true in each, in one pass over all.
    """

    magnitude_bits: Callable
    barrier: Callable
    count: Callable


def keep_largest(values, num_pruned, primitives):
    """Searches `(threshold, ties)`: what is below the threshold goes, and the last ties with it.

    Each pass fixes two bits, first those of `threshold`, then those of `ties`: of three candidates
    it takes the last that lets go `num_pruned` weights at most. The search is over as soon as one
    lets go just as many, so that ties cost passes only where there are any.

    Args:
        values: Float tensor, any shape.
        num_pruned: Scalar int32 tensor.
        primitives: `Primitives`.

    Returns:
        Bool tensor of the shape of `values`.
    """
    integer, bits, *_ = integer_type(values.dtype)
    passes, tie_passes = -(-bits // 2), -(-_TIE_BITS // 2)

    def is_open(i, threshold, ties, count):
        del threshold, ties
        return ops.logical_and(ops.not_equal(count, num_pruned), i < passes + tie_passes)

    def fits(count):
        return count <= num_pruned

    def fix_two_bits(i, threshold, ties, count):
        step = ops.where(i < passes, _digit(bits, i, integer), ops.cast(0, integer))
        tie_step = ops.where(i < passes, 0, _digit(_TIE_BITS, i - passes, "int32"))
        candidates = [(threshold + j * step, ties + j * tie_step) for j in (1, 2, 3)]
        pinned = _pin(values, i, primitives)
        counts = primitives.count([_goes(*pinned, *each, primitives) for each in candidates])
        accepted = sum(ops.cast(fits(count), "int32") for count in counts)  # the first ones
        threshold = threshold + ops.cast(accepted, integer) * step
        ties = ties + accepted * tie_step
        for candidate_count in counts:
            count = ops.where(fits(candidate_count), candidate_count, count)
        return i + 1, threshold, ties, count

    start = [ops.cast(0, dtype) for dtype in ("int32", integer, "int32", "int32")]
    i, threshold, ties, _ = ops.while_loop(is_open, fix_two_bits, start)
    return ops.logical_not(_goes(*_pin(values, i, primitives), threshold, ties, primitives))


def _digit(bits, i, integer):
    """The weight of the `i`-th digit to base 4 of a number of so many bits.

    If their number is odd, the last two digits overlap, as the first must not reach the sign:
    candidates that have been refused are refused again.
    """
    place = ops.clip(bits - 2 - 2 * i, 0, bits - 1)
    return ops.left_shift(ops.cast(1, integer), ops.cast(place, integer))


def _goes(values, columns, threshold, ties, primitives):
    """Bool tensor: below `threshold`, or equal to it and among the last `ties` indices."""
    shape = tuple(values.shape) or (1,)
    size = math.prod(shape)
    # For each row the first column that goes: an index of each weight would take 4 bytes of memory.
    rows = ops.reshape(ops.arange(size // shape[-1], dtype="int32"), (*shape[:-1], 1))
    first = ops.clip(ops.maximum(size - ties, 0) - rows * columns, 0, columns)
    goes = ops.arange(shape[-1], dtype="int32") >= first
    return primitives.magnitude_bits(values) < threshold + ops.cast(goes, threshold.dtype)


def _pin(values, counter, primitives):
    """The same values, and how many columns they have, as depending on a loop's counter.

    Else XLA would compute the integers of all values once, ahead of the loop, at 4 bytes each; and
    an index for each row, as one more program to compile.
    """
    columns = ops.cast((tuple(values.shape) or (1,))[-1], "int32")
    return primitives.barrier([values, columns, counter])[:2]
