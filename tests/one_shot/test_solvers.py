"""The linear algebra on one product, against NumPy and brute force."""

import itertools

import numpy as np
import pytest

from keras_trim.one_shot import reconstruct as reconstruct_module
from keras_trim.one_shot.admm import admm_mask
from keras_trim.one_shot.reconstruct import reconstruct
from keras_trim.one_shot.refit import refit
from keras_trim.one_shot.sparsegpt import inverse_factor, sparsegpt
from keras_trim.one_shot.units import Units, keep_largest
from keras_trim.one_shot.wanda import wanda


def problem(rng, systems=1, inputs=24, outputs=6):
    """Weights, and second moments of inputs that are correlated."""
    x = rng.standard_normal((systems, 500, 8)) @ rng.standard_normal((systems, 8, inputs))
    x += 0.3 * rng.standard_normal(x.shape)
    w = rng.standard_normal((systems, inputs, outputs))
    return w, x.swapaxes(1, 2) @ x / 500, x


def error(x, w, pruned):
    return np.mean((x @ (w - pruned)) ** 2) / np.mean((x @ w) ** 2)


def test_the_factor_of_the_inverse(rng):
    _, (h,), _ = problem(rng, inputs=150)
    upper = inverse_factor(h)
    np.testing.assert_array_equal(upper, np.triu(upper))
    np.testing.assert_allclose(upper.T @ upper @ h, np.eye(150), atol=1e-8)


def by_the_book(w, h, kept, damping=0.01):
    """Optimal brain surgeon for one weight after the other, with the inverse of what is left."""
    w, h = w.copy(), h + damping * np.mean(np.diag(h)) * np.eye(len(h))
    for i in range(len(w)):
        inverse = np.linalg.inv(h[i:, i:])
        for j in range(w.shape[1]):
            if not kept[i, j]:
                w[i:, j] -= inverse[:, 0] * w[i, j] / inverse[0, 0]
                w[i, j] = 0
    return w


def test_sparsegpt_is_optimal_brain_surgeon_input_by_input(rng):
    w, h, _ = problem(rng, inputs=200, outputs=3)
    pruned = sparsegpt(w, h, Units((1, 200, 3), 200, 300))
    assert np.count_nonzero(pruned == 0) == 300
    np.testing.assert_allclose(pruned[0], by_the_book(w[0], h[0], pruned[0] != 0), atol=1e-8)


def test_wanda_prunes_each_output_for_itself():
    w = np.array([[[1.0, 9.0], [2.0, 8.0], [3.0, 7.0]]])
    h = np.diag([100.0, 1.0, 1.0])[None]
    pruned = wanda(w, h, Units((1, 3, 2), 3, 3))
    # Scores 10 2 3 and 90 8 7; the one left over goes from the first output.
    np.testing.assert_array_equal(pruned, [[[1.0, 9.0], [0.0, 8.0], [0.0, 0.0]]])


def test_refit_is_least_squares_under_the_mask(rng):
    w, h, x = problem(rng, systems=2)
    y = rng.standard_normal((2, 500, 6))
    c = x.swapaxes(1, 2) @ y / 500
    mask = rng.random(w.shape) < 0.4
    refitted = refit(w, mask, h, c, damping=1e-9)
    assert not refitted[~mask].any()
    for s, j in itertools.product(range(2), range(6)):
        kept = mask[s, :, j]
        best = np.linalg.lstsq(x[s][:, kept], y[s, :, j], rcond=None)[0]
        np.testing.assert_allclose(refitted[s, kept, j], best, atol=1e-3)


def test_admm_finds_nearly_the_best_mask(rng):
    w, h, x = problem(rng, inputs=12, outputs=1)
    c = h @ w
    best = min(
        error(x, w, refit(w, keep_of(chosen), h, c))
        for chosen in itertools.combinations(range(12), 4)
    )
    mask = admm_mask(w, h, c, Units((1, 12, 1), 12, 8))
    assert mask.sum() == 4
    found = error(x, w, refit(w, mask, h, c))
    assert found < 1.5 * best
    assert found < error(x, w, refit(w, keep_largest(np.abs(w), 8), h, c))


def test_large_products_take_the_short_way(rng, monkeypatch):
    from keras_trim.one_shot import reconstruct as module

    w, h, x = problem(rng, inputs=40, outputs=8)
    units, errors = Units((1, 40, 8), 40, 240), {}
    for large in (2048, 0):
        monkeypatch.setattr(module, "LARGE", large)
        pruned = module.reconstruct(w, h, h @ w, units)
        assert np.count_nonzero(pruned) == 80
        errors[large] = error(x, w, pruned)
    assert errors[2048] < errors[0] < error(x, w, sparsegpt(w, h, units))


def keep_of(chosen):
    mask = np.zeros((1, 12, 1), bool)
    mask[0, list(chosen)] = True
    return mask


UNITS = {
    "single weights": Units((2, 20, 6), 20, 150),
    "blocks": Units((1, 20, 6), 10, 7, 4, 4),
    "2:4": Units((1, 20, 6), 10, 2, group=4),
}


@pytest.mark.parametrize("name", UNITS)
def test_solvers_keep_to_the_pattern(name, rng):
    units = UNITS[name]
    systems, inputs, outputs = units.shape
    w, h, _ = problem(rng, systems, inputs, outputs)
    results = {
        "sparsegpt": sparsegpt(w, h, units) != 0,
        "wanda": wanda(w, h, units) != 0,
        "admm": admm_mask(w, h, h @ w, units),
    }
    for kept in results.values():
        check(kept, units)


def check(kept, units):
    if units.group is None and units.height == 1:
        assert np.count_nonzero(~kept) == units.num_pruned
        return
    _, inputs, outputs = units.shape
    rows = [*range(0, inputs, units.channels), inputs]
    pruned = 0
    for start, stop in itertools.pairwise(rows):
        for i in range(start, stop, units.row_height):
            part = kept[0, i : min(i + units.row_height, stop)]
            if units.group:
                assert (part.sum(0) == min(2, len(part))).all()
                continue
            for j in range(0, outputs, units.width):
                block = part[:, j : j + units.width]
                assert block.all() or not block.any()
                pruned += not block.any()
    assert units.group or pruned == units.num_pruned


def test_of_equal_scores_the_later_go():
    np.testing.assert_array_equal(
        keep_largest(np.array([1.0, 0, 0, 2, 0]), 2), [True, True, False, True, False]
    )


@pytest.mark.parametrize("large", [2048, 8])
def test_zeros_stay(large, rng, monkeypatch):
    monkeypatch.setattr(reconstruct_module, "LARGE", large)
    w, h, _ = problem(rng, inputs=200)
    target = h @ w
    w = w * (rng.random(w.shape) < 0.5)
    units = Units(w.shape, 200, w.size // 4)
    for pruned in (sparsegpt(w, h, units), reconstruct(w, h, target, units)):
        assert not pruned[w == 0].any()
    units = Units(w.shape, 200, 3 * w.size // 4)
    for pruned in (sparsegpt(w, h, units), reconstruct(w, h, target, units)):
        assert not pruned[w == 0].any()
        assert np.count_nonzero(pruned == 0) == 3 * w.size // 4
