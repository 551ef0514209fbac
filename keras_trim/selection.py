"""Exact selection of the largest magnitudes, without sorting, on every backend.

The bit pattern of a non-negative IEEE float, read as an integer, orders as the float does. So
the k-th smallest magnitude is found by fixing its bits from the highest down: each pass over the
weights counts how many magnitudes lie below some candidates. That allocates next to nothing, is
exact for any size (counts are integers) and is the same on every backend. The idea is that of radix
selection; see Knuth, The Art of Computer Programming, vol. 3, section 5.2.5.

XLA runs all passes in one loop, and three candidates in each: they fix two bits at once. On PyTorch
a pass is a call, with one candidate; on its CPU NumPy's quickselect is faster than the passes, and
on a GPU a sort, unless a weight is so large that the memory for it matters.
"""

import functools
import math

import keras
from keras import ops

BACKEND = keras.backend.backend()

# Bits, mask of the sign, and the smallest NaN of each integer type that floats are read as.
_INT32 = ("int32", 31, 0x7FFF_FFFF, 0x7F80_0001)
_INT64 = ("int64", 63, 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0001)

# Sorting more than that takes more memory on a GPU than the time it saves is worth.
_MAX_SORTED = 2**22

# For any size: what is the same for all weights is compiled once.
_TIE_BITS = 31


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
    return _kernel()(ops.convert_to_tensor(values), ops.cast(num_pruned, "int32"))


# XLA: JAX and TensorFlow


@functools.cache
def _kernel():
    """Compiled; within a compiled step it is inlined."""
    if BACKEND == "jax":
        import jax

        return jax.jit(_keep_largest)
    import tensorflow as tf

    return tf.function(_keep_largest, jit_compile=True, autograph=False)


def _keep_largest(values, num_pruned):
    """Searches `(threshold, ties)`: what is below the threshold goes, and the last ties with it.

    Each pass fixes two bits, first those of `threshold`, then those of `ties`: of three candidates
    it takes the last that lets go `num_pruned` weights at most. The search is over as soon as one
    lets go just as many, so that ties cost passes only where there are any.
    """
    integer, bits, *_ = _INT64 if values.dtype == "float64" else _INT32
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
        pinned = _pin(values, i)
        counts = _count([_goes(*pinned, *candidate) for candidate in candidates])
        accepted = sum(ops.cast(fits(count), "int32") for count in counts)  # the first ones
        threshold = threshold + ops.cast(accepted, integer) * step
        ties = ties + accepted * tie_step
        for candidate_count in counts:
            count = ops.where(fits(candidate_count), candidate_count, count)
        return i + 1, threshold, ties, count

    start = [ops.cast(0, dtype) for dtype in ("int32", integer, "int32", "int32")]
    i, threshold, ties, _ = ops.while_loop(is_open, fix_two_bits, start)
    return ops.logical_not(_goes(*_pin(values, i), threshold, ties))


def _digit(bits, i, integer):
    """The weight of the `i`-th digit to base 4 of a number of so many bits.

    If their number is odd, the last two digits overlap, as the first must not reach the sign:
    candidates that have been refused are refused again.
    """
    place = ops.clip(bits - 2 - 2 * i, 0, bits - 1)
    return ops.left_shift(ops.cast(1, integer), ops.cast(place, integer))


def _goes(values, columns, threshold, ties):
    """Bool tensor: below `threshold`, or equal to it and among the last `ties` indices."""
    shape = tuple(values.shape) or (1,)
    size = math.prod(shape)
    # For each row the first column that goes: an index of each weight would take 4 bytes of memory.
    rows = ops.reshape(ops.arange(size // shape[-1], dtype="int32"), (*shape[:-1], 1))
    first = ops.clip(ops.maximum(size - ties, 0) - rows * columns, 0, columns)
    goes = ops.arange(shape[-1], dtype="int32") >= first
    return magnitude_bits(values) < threshold + ops.cast(goes, threshold.dtype)


def _pin(values, counter):
    """The same values, and how many columns they have, as depending on a loop's counter.

    Else XLA would compute the integers of all values once, ahead of the loop, at 4 bytes each; and
    an index for each row, as one more program to compile.
    """
    columns = ops.cast((tuple(values.shape) or (1,))[-1], "int32")
    if BACKEND == "jax":
        from jax import lax

        return lax.optimization_barrier((values, columns, counter))[:2]
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    return gen_xla_ops.xla_optimization_barrier([values, columns, counter])[:2]


def _count(conditions):
    """How many are true in each of the bool tensors: scalar int32 tensors, in one pass over all."""
    ones = [ops.cast(condition, "int32") for condition in conditions]
    zeros = [ops.cast(0, "int32")] * len(ones)
    axes = tuple(range(len(ones[0].shape)))
    if BACKEND == "jax":
        from jax import lax

        return lax.reduce(ones, zeros, _add, axes)
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    return gen_xla_ops.xla_variadic_reduce_v2(ones, zeros, axes, _adder(len(ones)))


def _add(sums, others):
    return [a + b for a, b in zip(sums, others, strict=True)]


@functools.cache
def _adder(count):
    import tensorflow as tf

    scalars = [tf.TensorSpec((), "int32")] * (2 * count)
    function = tf.function(lambda *values: _add(values[:count], values[count:]), autograph=False)
    return function.get_concrete_function(*scalars)


# PyTorch


def _keep_largest_eager(values, num_pruned):
    import torch

    with torch.no_grad():
        if num_pruned == values.numel():
            return torch.zeros(values.shape, dtype=torch.bool, device=values.device)
        if values.device.type == "cpu":
            # A copy of its own, which is gone before the next one is made.
            threshold = _partition(magnitude_bits(values).reshape(-1).numpy(), num_pruned)
            bits = magnitude_bits(values).reshape(-1)
        else:
            bits = magnitude_bits(values).reshape(-1)
            find = _sort if bits.is_cuda and bits.numel() <= _MAX_SORTED else _bisect
            threshold = find(bits, num_pruned)
        keep = bits >= threshold
        surplus = num_pruned - (bits.numel() - int(torch.count_nonzero(keep)))
        if surplus:  # the last `surplus` of those equal to the threshold go
            ties = torch.nonzero(bits == threshold).reshape(-1)
            keep[ties[ties.numel() - surplus :]] = False
        return keep.reshape(values.shape)


def _partition(array, index):
    """The value that would stand at `index` if the array were sorted; changes its order."""
    array.partition(index)
    return int(array[index])


def _sort(bits, index):
    """The same by sorting: takes several times the memory, but one number leaves the device."""
    import torch

    return int(torch.sort(bits).values[index])


def _bisect(bits, index):
    """The same by counting: no copy, and no more than one number leaves the device for each bit."""
    import torch

    passes = 63 if bits.dtype == torch.int64 else 31
    threshold = 0
    for i in range(passes):
        candidate = threshold | (1 << (passes - 1 - i))
        if int(torch.count_nonzero(bits < candidate)) <= index:
            threshold = candidate
    return threshold
