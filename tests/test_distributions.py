import keras
import numpy as np
import pytest
from conftest import make_mlp, values

import keras_trim
from keras_trim.distributions import Allocation, distribute


def variables():
    """Kernels 8x16 and 16x1."""
    return [layer.kernel for layer in make_mlp().layers]


def test_uniform():
    assert distribute("uniform", 0.7, variables()) == [0.7, 0.7]


def test_erk_by_hand():
    first, second = distribute("erk", 0.5, variables())
    # Raw densities 24/128 and 17/16; 72 weights stay: scale 72 / (24 + 17); the second is capped.
    assert second == 0.0
    np.testing.assert_allclose(first, 1 - (72 - 16) / 128)
    small = keras.Sequential([keras.Input((4, 4, 2)), keras.layers.Conv2D(6, 3)])
    large = keras.Sequential([keras.Input((40,)), keras.layers.Dense(50)])
    kernels = [small.layers[0].kernel, large.layers[0].kernel]
    first, second = distribute("erk", 0.8, kernels)
    np.testing.assert_allclose((1 - first) / (1 - second), (14 / 108) / (90 / 2000))
    np.testing.assert_allclose(first * 108 + second * 2000, 0.8 * 2108)


def test_global_is_one_threshold(rng):
    kernels = variables()
    kernels[0].assign(rng.permutation(128).reshape(8, 16) + 1.0)
    kernels[1].assign(-(rng.permutation(16).reshape(16, 1) + 60.5))
    first, second = distribute("global", 0.5, kernels)  # 72 of 144: below 67.25
    assert (first * 128, second * 16) == (66, 6)


def test_global_breaks_ties_and_keeps_a_weight():
    kernels = variables()
    for kernel in kernels:
        kernel.assign(np.ones(kernel.shape))
    first, second = distribute("global", 0.95, kernels)
    assert (first * 128, second * 16) == (127, 137 - 128)


def test_the_first_expression_that_matches_counts():
    paths = variables()
    given = {"hidden/": 0.9, "kernel$": 0.25}
    assert distribute(given, None, paths) == [0.9, 0.25]
    assert distribute({"/out": 0.25}, None, paths) == [None, 0.25]
    with pytest.raises(ValueError, match="Each expression.*Received: without a match, 'conv'"):
        distribute({"conv": 0.5, "out": 0.5}, None, paths)
    with pytest.raises(ValueError, match=r"dict of regular expressions.*Received: '\('"):
        distribute({"(": 0.5}, None, paths)
    with pytest.raises(ValueError, match=r"`distribution\['out'\]` is the fraction.*1.5"):
        distribute({"out": 1.5}, None, paths)
    with pytest.raises(ValueError, match="leave `sparsity` out.*Received: sparsity=0.5"):
        distribute({"out": 0.5}, 0.5, paths)
    with pytest.raises(ValueError, match="at least one expression.*Received: distribution={}"):
        distribute({}, None, paths)


def test_an_allocation_is_of_one_model():
    paths = variables()
    allocation = Allocation({paths[1].path: 0.5})
    assert distribute(allocation, None, paths) == [None, 0.5]
    assert distribute(Allocation({"out/kernel": 0.5}), None, paths) == [None, 0.5]
    with pytest.raises(ValueError, match="belongs to another model.*Received: other/kernel"):
        distribute(Allocation({"other/kernel": 0.5}), None, paths)


def test_prune_takes_them(mlp):
    keras_trim.prune(mlp, distribution={"hidden": 0.75})
    assert [np.count_nonzero(values(layer.kernel)) for layer in mlp.layers] == [32, 16]
    model = keras_trim.prune(make_mlp(), 0.5, distribution="erk")
    assert [np.count_nonzero(values(layer.kernel)) for layer in model.layers] == [56, 16]
    with pytest.raises(ValueError, match="An N:M pattern has one sparsity.*Received"):
        keras_trim.prune(mlp, 0.5, distribution="erk", sparsity_m_by_n=(2, 4))
