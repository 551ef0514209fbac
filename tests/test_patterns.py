import math

import numpy as np
import oracle
import pytest
from keras import ops

from keras_trim.pattern_arguments import validate_pattern_arguments
from keras_trim.patterns import (
    BlockPattern,
    MatrixView,
    NMPattern,
    Pattern,
    make_pattern,
)


def mask_of(pattern, weights, num_pruned):
    return ops.convert_to_numpy(pattern.mask(ops.convert_to_tensor(weights), num_pruned))


def test_element_counts_round_and_keep_one():
    pattern = Pattern((10,), MatrixView.default(1))
    # Python rounds the float64 product, halves to even.
    for sparsity, pruned in [(0.0, 0), (0.05, 0), (0.25, 2), (0.35, 4), (0.8, 8), (0.99, 9)]:
        assert pattern.count_pruned(sparsity) == pruned
    assert Pattern((1,), MatrixView.default(1)).count_pruned(0.9) == 0


@pytest.mark.parametrize("size", [10, 4097, 25_000_000, 100_000_000])
@pytest.mark.parametrize("sparsity", [0.0, 0.125, 0.3, 0.8, 0.999])
def test_traced_counts_are_exact_for_the_float32_sparsity(size, sparsity):
    pattern = Pattern((size,), MatrixView.default(1))
    count = pattern.count_pruned(ops.convert_to_tensor(sparsity, "float32"))
    exact = min(float(np.float32(sparsity)) * size, size - 1)
    assert int(count) == pytest.approx(exact, abs=0.51)


def test_block_by_hand():
    weights = np.array(
        [
            [1, 1, 9, 0],
            [1, 1, 0, 0],
            [4, 4, 3, 3],
            [4, 4, 3, 3],
        ],
        "float32",
    )
    view = MatrixView.default(2)
    average = BlockPattern(weights.shape, view, (2, 2), "AVG")  # 1, 2.25, 4, 3
    assert mask_of(average, weights, 2)[::2, ::2].tolist() == [[False, False], [True, True]]
    maximum = BlockPattern(weights.shape, view, (2, 2), "MAX")  # 1, 9, 4, 3
    assert mask_of(maximum, weights, 2)[::2, ::2].tolist() == [[False, True], [True, False]]
    assert maximum.count_zeros(2) == 8


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["AVG", "MAX"])
@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ((8, 8), (2, 4)),
        ((7, 9), (2, 4)),
        ((5, 3), (5, 1)),
        ((3, 3, 6, 10), (4, 4)),
        ((2, 5, 7), (3, 2)),
    ],
)
def test_blocks_equal_the_oracle(shape, block, pooling, rng):
    # Multiples of 1/8 sum exactly in both float32 and float64.
    weights = (rng.integers(-800, 800, shape) / 8).astype("float32")
    view = MatrixView.default(len(shape))
    pattern = BlockPattern(shape, view, block, pooling)
    matrix = weights.reshape((-1, *shape[-2:]))
    for num_pruned in (0, 1, pattern.num_units // 2, pattern.num_units - 1):
        expected = oracle.block_mask(matrix, block, pooling, num_pruned).reshape(shape)
        mask = mask_of(pattern, weights, num_pruned)
        np.testing.assert_array_equal(mask, expected)
        assert (~mask).sum() >= pattern.count_zeros(num_pruned)


def test_2_4_by_hand():
    column = np.array([[4, -1, 3, 2, 1, 1, 1, 1]], "float32").T
    pattern = NMPattern(column.shape, MatrixView.default(2), 2, 4)
    assert mask_of(pattern, column, 2).ravel().tolist() == [
        *(True, False, True, False),
        *(True, True, False, False),
    ]
    assert mask_of(pattern, column, 1).sum() == 6  # on the way there


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 5), (7, 5), (9, 2), (3, 3, 6, 4), (3, 2), (5, 6, 3)])
@pytest.mark.parametrize(("zeros", "group"), [(2, 4), (1, 4), (3, 4), (1, 2), (5, 8)])
def test_n_m_equals_the_oracle(shape, zeros, group, rng):
    weights = rng.integers(-4, 5, shape).astype("float32")  # with ties
    pattern = NMPattern(shape, MatrixView.default(len(shape)), zeros, group)
    matrix = weights.reshape((-1, *shape[-2:]))
    for num_pruned in range(zeros + 1):
        expected = oracle.nm_mask(matrix, group, num_pruned).reshape(shape)
        mask = mask_of(pattern, weights, num_pruned)
        np.testing.assert_array_equal(mask, expected)
        assert (~mask).sum() == pattern.count_zeros(num_pruned)


def test_n_m_keeps_the_schedules_pace():
    pattern = NMPattern((8, 8), MatrixView.default(2), 2, 4)
    counts = [pattern.count_pruned(s, final_sparsity=0.5) for s in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)]
    assert counts == [0, 0, 1, 1, 2, 2]
    assert pattern.count_pruned(0.9, final_sparsity=0.9) == 2  # a constant schedule: all at once


def test_n_m_needs_a_final_sparsity():
    with pytest.raises(ValueError, match="attribute `final_sparsity`"):
        NMPattern((8, 8), MatrixView.default(2), 2, 4).count_pruned(0.5)


def test_matrix_view_round_trip(rng):
    weights = rng.standard_normal((2, 3, 4, 5)).astype("float32")
    view = MatrixView(stack=(1,), inputs=(3, 0), outputs=(2,))
    matrices = view.to_matrices(ops.convert_to_tensor(weights))
    assert tuple(matrices.shape) == view.shape(weights.shape) == (3, 10, 4)
    assert ops.convert_to_numpy(matrices)[2, 9, 1] == weights[1, 2, 1, 4]
    back = ops.convert_to_numpy(view.from_matrices(matrices, weights.shape))
    np.testing.assert_array_equal(back, weights)


def test_masks_do_not_depend_on_rounding_of_sums(rng):
    # Every backend adds in the same order, so NumPy gives the same bits in that order.
    weights = rng.standard_normal((12, 12)).astype("float32")
    pattern = BlockPattern(weights.shape, MatrixView.default(2), (3, 3), "AVG")
    pooled = ops.convert_to_numpy(pattern._pool(ops.convert_to_tensor(weights)))
    blocks = np.abs(weights).reshape(4, 3, 4, 3)
    rows = (blocks[..., 0] + blocks[..., 1]) + blocks[..., 2]
    expected = (rows[:, 0] + rows[:, 1]) + rows[:, 2]
    np.testing.assert_array_equal(pooled[0], expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_patterns_take_half_precision(dtype, rng):
    weights = ops.cast(ops.convert_to_tensor(rng.integers(-8, 8, (8, 6)).astype("float32")), dtype)
    exact = ops.convert_to_numpy(ops.cast(weights, "float32"))
    view = MatrixView.default(2)
    for pattern in (BlockPattern((8, 6), view, (2, 2)), NMPattern((8, 6), view)):
        mask = ops.convert_to_numpy(pattern.mask(weights, 2))
        np.testing.assert_array_equal(mask, mask_of(pattern, exact, 2))


def test_block_larger_than_the_weight():
    with pytest.raises(ValueError, match=r"'dense/kernel' has 4 input and 8 output.*\(8, 2\)"):
        make_pattern((4, 8), MatrixView.default(2), block_size=(8, 2), path="dense/kernel")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 1), "AVG", None), "at least 1"),
        (((1.5, 1), "AVG", None), "two integers"),
        (("four", "AVG", None), "two integers"),
        (((2, 2), "SUM", None), "'AVG' or 'MAX'"),
        (((1, 1), "AVG", (4, 4)), "1 <= m < n"),
        (((1, 1), "AVG", (0, 4)), "1 <= m < n"),
        (((1, 1), "AVG", (2, 4, 8)), "1 <= m < n"),
        (((1, 1), "AVG", "4:2"), "1 <= m < n"),
        (((2, 2), "AVG", (2, 4)), "either `block_size` or `sparsity_m_by_n`"),
    ],
)
def test_impossible_patterns(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        validate_pattern_arguments(*arguments)
    assert "Received: " in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ((4, "AVG", None), ((4, 4), None)),
        (("1x16", "AVG", None), ((1, 16), None)),
        ((np.array([2, 3]), "AVG", None), ((2, 3), None)),
        (((1, 1), "AVG", [2, 4]), ((1, 1), (2, 4))),
        (((1, 1), "AVG", "2:4"), ((1, 1), (2, 4))),
        (((1, 1), "AVG", "1:4"), ((1, 1), (3, 4))),  # one is kept, so three are zero
    ],
)
def test_patterns_as_people_write_them(arguments, meant):
    assert validate_pattern_arguments(*arguments) == meant


def test_number_of_units():
    view = MatrixView.default(4)
    shape = (3, 3, 6, 10)
    assert Pattern(shape, view).num_units == math.prod(shape)
    assert BlockPattern(shape, view, (4, 4)).num_units == 9 * 2 * 3
