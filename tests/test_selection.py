import hypothesis
import hypothesis.extra.numpy as hnp
import keras
import numpy as np
import oracle
import pytest
from hypothesis import strategies as st
from keras import ops

from keras_trim.selection import keep_largest

HAS_FLOAT64 = keras.backend.backend() != "jax"  # unless x64 is enabled


def select(values, num_pruned):
    return ops.convert_to_numpy(keep_largest(ops.convert_to_tensor(values), num_pruned))


# Few distinct values, so ties are common; denormals, both zeros and both infinities.
TRICKY = [0.0, -0.0, 1.0, -1.0, 1.5, -2.0, 1e-42, -3e-43, np.inf, -np.inf, np.nan, 3e38]


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.data())
def test_equals_sorting(data):
    # A fixed set of shapes, because each new shape compiles.
    shape = data.draw(st.sampled_from([(1,), (7,), (2, 3), (3, 1, 5), (16, 4)]))
    elements = st.one_of(st.sampled_from(TRICKY), st.floats(width=32))
    values = data.draw(hnp.arrays("float32", shape, elements=elements))
    num_pruned = data.draw(st.integers(0, values.size))
    np.testing.assert_array_equal(
        select(values, num_pruned), oracle.keep_largest(values, num_pruned)
    )


def test_ties_keep_the_lower_index():
    values = np.array([1.0, -2.0, 2.0, 2.0, -2.0], "float32")
    assert select(values, 3).tolist() == [False, True, True, False, False]


def test_nan_is_never_pruned_before_a_number():
    values = np.array([np.nan, np.inf, 1.0, -np.nan], "float32")
    assert select(values, 2).tolist() == [True, False, False, True]
    assert select(values, 3).tolist() == [True, False, False, False]


@pytest.mark.parametrize("num_pruned", [0, 1, 11, 12])
def test_zeros_are_pruned_first(num_pruned):
    values = np.array([0, 3, 0, 1, 0, 2, 0, 4, 0, 5, 0, 6], "float32")
    np.testing.assert_array_equal(
        select(values, num_pruned), oracle.keep_largest(values, num_pruned)
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"] + ["float64"] * HAS_FLOAT64)
def test_other_dtypes(dtype, rng):
    values = ops.cast(ops.convert_to_tensor(rng.standard_normal((9, 11)).astype("float32")), dtype)
    exact = ops.convert_to_numpy(ops.cast(values, "float64" if HAS_FLOAT64 else "float32"))
    for num_pruned in (1, 50, 98):
        mask = ops.convert_to_numpy(keep_largest(values, num_pruned))
        np.testing.assert_array_equal(mask, oracle.keep_largest(exact, num_pruned))


@pytest.mark.slow
def test_counts_are_exact_for_1e8_weights(rng):
    # Float32 counts are exact only up to 2**24 = 16.8 million.
    size = 100_000_000
    values = np.empty(size, "float32")
    block = rng.standard_normal(1_000_000).astype("float32")
    for start in range(0, size, block.size):
        values[start : start + block.size] = block
    num_pruned = 79_999_999  # not a multiple of 100, so ties must be split
    mask = select(values, num_pruned)
    assert size - np.count_nonzero(mask) == num_pruned
    assert np.abs(values[~mask]).max() <= np.abs(values[mask]).min()


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a path of PyTorch's accelerators")
@pytest.mark.parametrize("find", ["_bisect", "_sort"])
@hypothesis.given(data=st.data())
def test_ways_of_accelerators_find_what_sorting_finds(find, data):
    from keras_trim.backend import torch as backend

    elements = st.one_of(st.sampled_from(TRICKY), st.floats(width=32))
    values = data.draw(hnp.arrays("float32", st.integers(1, 20), elements=elements))
    index = data.draw(st.integers(0, values.size - 1))
    bits = backend.magnitude_bits(ops.convert_to_tensor(values))
    threshold = getattr(backend, find)(bits, index)
    assert threshold == np.sort(ops.convert_to_numpy(bits))[index]
