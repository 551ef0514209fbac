"""Exact selection of the largest magnitudes, without sorting, on every backend.

The bit pattern of a non-negative IEEE float, read as an integer, orders as the float does. So
the k-th smallest magnitude is found by fixing its bits from the highest down: each pass counts how
many magnitudes lie below a candidate. That takes 31 counting passes for float32, allocates next to
nothing, is exact for any size (counts are integers) and is the same on every backend. The idea is
that of radix selection; see Knuth, The Art of Computer Programming, vol. 3, section 5.2.5.
"""

import functools
import math

import keras
from keras import ops

BACKEND = keras.backend.backend()

# Passes, mask of the sign, and the smallest NaN of each integer type that floats are read as.
_INT32 = ("int32", 31, 0x7FFF_FFFF, 0x7F80_0001)
_INT64 = ("int64", 63, 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0001)


def magnitude_bits(values):
    """Reads floats as non-negative integers that order as their magnitudes do.

    Args:
        values: Float tensor, any shape. float16 and bfloat16 are widened first, which is exact.

    Returns:
        Tensor of int32 (int64 for float64), the shape of `values`. All NaNs map to one integer,
        the largest.
    """
    dtype = keras.backend.standardize_dtype(values.dtype)
    if dtype in ("float16", "bfloat16"):
        values = ops.cast(values, "float32")
    integer, _, magnitude, nan = _INT64 if dtype == "float64" else _INT32
    if BACKEND == "jax":
        from jax import lax

        bits = lax.bitcast_convert_type(values, integer)
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        bits = tf.bitcast(values, integer)
    elif BACKEND == "torch":
        import torch

        # In place: the copy that the mask of the sign needs is the only one that is made.
        return values.view(getattr(torch, integer)).bitwise_and(magnitude).clamp_(max=nan)
    else:
        raise ValueError(
            "keras-trim selects weights on the jax, tensorflow and torch backends. Set the "
            f"environment variable KERAS_BACKEND before importing keras. Received: {BACKEND}"
        )
    return ops.minimum(ops.bitwise_and(bits, magnitude), nan)


def _compiled(function):
    """Compiles `function` where the backend can; within a compiled step it is inlined."""
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)
    return function


def _pin(values, counter):
    """Keeps XLA from computing the loop's integers once, ahead of it, at 4 bytes per weight."""
    if BACKEND == "jax":
        from jax import lax

        return lax.optimization_barrier((values, counter))[0]
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    return gen_xla_ops.xla_optimization_barrier([values, counter])[0]


def _count(condition):
    return ops.sum(ops.cast(condition, "int32"))


def keep_largest(values, num_pruned):
    """Marks all but the `num_pruned` smallest magnitudes.

    Among equal magnitudes the lower index (row-major) is kept; NaN counts as the largest.

    Args:
        values: Float tensor, any shape, fewer than 2**31 elements.
        num_pruned: Integer or scalar int32 tensor in `[0, size]`.

    Returns:
        Bool tensor of the shape of `values` with exactly `num_pruned` elements `False`.
    """
    if BACKEND == "torch":
        return _keep_largest_eager(values, int(num_pruned))
    return _keep_largest_compiled(values, ops.cast(num_pruned, "int32"))


@functools.cache
def _kernel():
    return _compiled(_keep_largest)


def _keep_largest_compiled(values, num_pruned):
    return _kernel()(ops.convert_to_tensor(values), num_pruned)


def _keep_largest(values, num_pruned):
    shape, size = values.shape, math.prod(values.shape)
    integer, passes, *_ = _INT64 if values.dtype == "float64" else _INT32
    one = ops.cast(1, integer)

    def fix_bit(i, state):
        threshold, below = state
        candidate = threshold + ops.left_shift(one, ops.cast(passes - 1 - i, integer))
        below_candidate = _count(magnitude_bits(_pin(values, i)) < candidate)
        accept = below_candidate <= num_pruned
        return (
            ops.where(accept, candidate, threshold),
            ops.where(accept, below_candidate, below),
        )

    # The largest integer that at most `num_pruned` magnitudes lie below: the k-th magnitude.
    start = (ops.cast(0, integer), ops.cast(0, "int32"))
    threshold, below = ops.fori_loop(0, passes, fix_bit, start)
    surplus = num_pruned - below  # how many of those equal to it go, the highest indices first

    def split_ties():
        # The largest cut such that at least `surplus` ties have an index of `cut` or more.
        index = ops.reshape(ops.arange(size, dtype="int32"), shape)
        index_passes = max(size - 1, 1).bit_length()

        def fix_index_bit(i, cut):
            candidate = cut + ops.left_shift(1, index_passes - 1 - i)
            tied = ops.equal(magnitude_bits(_pin(values, i)), threshold)
            above = _count(ops.logical_and(tied, index >= candidate))
            return ops.where(above >= surplus, candidate, cut)

        cut = ops.fori_loop(0, index_passes, fix_index_bit, ops.cast(0, "int32"))
        bits = magnitude_bits(values)
        kept_tie = ops.logical_and(ops.equal(bits, threshold), index < cut)
        return ops.logical_or(bits > threshold, kept_tie)

    return ops.cond(surplus > 0, split_ties, lambda: magnitude_bits(values) >= threshold)


def _keep_largest_eager(values, num_pruned):
    import torch

    with torch.no_grad():
        bits = magnitude_bits(values).reshape(-1)
        passes = 63 if bits.dtype == torch.int64 else 31
        threshold = 0
        for i in range(passes):
            candidate = threshold | (1 << (passes - 1 - i))
            if int(torch.count_nonzero(bits < candidate)) <= num_pruned:
                threshold = candidate
        keep = bits >= threshold
        surplus = num_pruned - (bits.numel() - int(torch.count_nonzero(keep)))
        if surplus:  # the last `surplus` of those equal to the threshold go
            ties = torch.nonzero(bits == threshold).reshape(-1)
            keep[ties[ties.numel() - surplus :]] = False
        return keep.reshape(values.shape)
