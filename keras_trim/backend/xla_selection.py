"""Selects weights under XLA (JAX and TensorFlow), with all passes in one loop.

Each pass counts three candidates, which fixes two bits at once.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from keras import ops

from keras_trim.backend.float_bits import integer_type

# The same for weights of any size, so XLA compiles the shared part once.
_TIE_BITS = 31


class Primitives(NamedTuple):
    """Operations that Keras does not have.

    Args:
        magnitude_bits: Function; see `keras_trim.selection`.
        barrier: Function: list of tensors -> the same tensors, with values unknown to XLA.
        count: Function: list of bool tensors of one shape -> list of scalar int32 tensors, the
            number of `True` in each, counted in a single pass.
    """

    magnitude_bits: Callable
    barrier: Callable
    count: Callable


def keep_largest(values, num_pruned, primitives):
    """Keeps the largest magnitudes.

    This searches for `(threshold, ties)`: weights below the threshold are pruned, and of those
    equal to it the last `ties`. Each pass fixes two bits, first of `threshold`, then of `ties`: of
    three candidates, it takes the last that prunes at most `num_pruned` weights. The search ends as
    soon as a candidate prunes exactly that many, so ties only cost passes if there are any.

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
        accepted = sum(ops.cast(fits(count), "int32") for count in counts)  # a prefix of them
        threshold = threshold + ops.cast(accepted, integer) * step
        ties = ties + accepted * tie_step
        for candidate_count in counts:
            count = ops.where(fits(candidate_count), candidate_count, count)
        return i + 1, threshold, ties, count

    start = [ops.cast(0, dtype) for dtype in ("int32", integer, "int32", "int32")]
    i, threshold, ties, _ = ops.while_loop(is_open, fix_two_bits, start)
    return ops.logical_not(_goes(*_pin(values, i, primitives), threshold, ties, primitives))


def _digit(bits, i, integer):
    """Returns the place value of base-4 digit `i` in a number with `bits` bits.

    If the number of bits is odd, the last two digits overlap, because the first must not reach the
    sign. Candidates that were rejected before are then rejected again.
    """
    place = ops.clip(bits - 2 - 2 * i, 0, bits - 1)
    return ops.left_shift(ops.cast(1, integer), ops.cast(place, integer))


def _goes(values, columns, threshold, ties, primitives):
    """Bool tensor: values below `threshold`, and the last `ties` of those equal to it."""
    shape = tuple(values.shape) or (1,)
    size = math.prod(shape)
    # The first pruned column of each row. An index per weight would take 4 bytes of memory each.
    rows = ops.reshape(ops.arange(size // shape[-1], dtype="int32"), (*shape[:-1], 1))
    first = ops.clip(ops.maximum(size - ties, 0) - rows * columns, 0, columns)
    goes = ops.arange(shape[-1], dtype="int32") >= first
    return primitives.magnitude_bits(values) < threshold + ops.cast(goes, threshold.dtype)


def _pin(values, counter, primitives):
    """Returns the same values, and their number of columns, made to depend on a loop's counter.

    Otherwise XLA would compute the integers of all values before the loop, at 4 bytes each, and
    compile another program for the index of each row.
    """
    columns = ops.cast((tuple(values.shape) or (1,))[-1], "int32")
    return primitives.barrier([values, columns, counter])[:2]
