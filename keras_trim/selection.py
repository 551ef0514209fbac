"""Exact selection of the largest magnitudes, without sorting, on every backend.

The bit pattern of a non-negative IEEE float, read as an integer, orders as the float does. So
the k-th smallest magnitude is found by fixing its bits from the highest down: each pass over the
weights counts how many magnitudes lie below some candidates. That allocates next to nothing, is
exact for any size (counts are integers) and is the same on every backend. The idea is that of radix
selection; see Knuth, The Art of Computer Programming, vol. 3, section 5.2.5.

`backend/xla_selection.py` does that for JAX and TensorFlow. `backend/torch.py` has faster ways.
"""

from keras_trim import backend


def magnitude_bits(values):
    """Reads floats as non-negative integers that order as their magnitudes do.

    Args:
        values: Float tensor, any shape. float16 and bfloat16 are widened first, which is exact.

    Returns:
        Tensor of int32 (int64 for float64), the shape of `values`. All NaNs map to one integer,
        the largest.
    """
    return backend.magnitude_bits(values)


def keep_largest(values, num_pruned):
    """Marks all but the `num_pruned` smallest magnitudes.

    Among equal magnitudes the lower index (row-major) is kept; NaN counts as the largest.

    Args:
        values: Float tensor, any shape, fewer than 2**31 elements.
        num_pruned: Integer or scalar int32 tensor in `[0, size]`.

    Returns:
        Bool tensor of the shape of `values` with exactly `num_pruned` elements `False`.
    """
    return backend.keep_largest(values, num_pruned)
