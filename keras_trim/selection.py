"""Selects the largest magnitudes exactly, without sorting, on every backend.

The bit patterns of non-negative IEEE floats, read as integers, sort like the floats. So this finds
the k-th smallest magnitude by fixing its bits from the highest down: each pass over the weights
counts how many magnitudes lie below some candidates. That needs almost no memory, is exact for any
size (counts are integers), and gives the same result on every backend. The idea is radix selection;
see Knuth, The Art of Computer Programming, vol. 3, section 5.2.5.

`backend/xla_selection.py` implements it for JAX and TensorFlow. `backend/torch.py` has faster ways.
"""

from keras_trim import backend


def magnitude_bits(values):
    """Reads floats as non-negative integers that sort by magnitude.

    Args:
        values: Float tensor, any shape. float16 and bfloat16 are cast to float32 first, which is
            exact.

    Returns:
        Tensor of int32 (int64 for float64), the shape of `values`. All NaNs map to one integer, the
        largest.
    """
    return backend.magnitude_bits(values)


def keep_largest(values, num_pruned):
    """Returns a mask of all but the `num_pruned` smallest magnitudes.

    Among equal magnitudes, lower indices (row-major) are kept first. NaN counts as the largest.

    Args:
        values: Float tensor, any shape, fewer than 2**31 elements.
        num_pruned: Integer or scalar int32 tensor in `[0, size]`.

    Returns:
        Bool tensor of the shape of `values` with exactly `num_pruned` elements `False`.
    """
    return backend.keep_largest(values, num_pruned)
