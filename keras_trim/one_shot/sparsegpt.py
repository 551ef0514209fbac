"""SparseGPT: prunes input by input, and updates later weights to compensate.

Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
https://arxiv.org/abs/2301.00774, algorithm 1.
"""

import itertools

import numpy as np

from keras_trim.one_shot.moments import damped

_CHUNK = 128  # inputs whose mask is chosen at a time ("B_s" and "B" in the paper)
_ROWS = 16  # inputs per update of the rest of a chunk


def sparsegpt(weights, h, units, damping=0.01):
    """Prunes a product, and corrects the kept weights for the error.

    Args:
        weights: Float64 array (systems, inputs, outputs).
        h: Float64 array (systems, inputs, inputs): second moments of the inputs.
        units: `Units`.
        damping: Float. Fraction of the mean of `h`'s diagonal to add to the diagonal.

    Returns:
        Float64 array (systems, inputs, outputs), zero where weights are pruned or were zero.
    """
    alive = weights != 0
    upper = np.stack([inverse_factor(system) for system in damped(h, damping)])
    weights, pruned = weights.copy(), np.zeros_like(weights)
    gone = units_before = 0
    total = units.num_units(0, weights.shape[1])
    bounds = _chunks(units)
    for begin, end in itertools.pairwise(bounds):
        diagonal = np.diagonal(upper, axis1=1, axis2=2)[:, begin:end, None]
        units_before += units.num_units(begin, end)
        going = round(units.num_pruned * units_before / total) - gone
        gone += going
        own = alive[:, begin:end]
        kept = own & units.keep((weights[:, begin:end] * own / diagonal) ** 2, begin, going)
        for system in range(len(weights)):
            rows, factor = weights[system], upper[system]
            errors = _prune_chunk(
                rows[begin:end],
                factor[begin:end, begin:end],
                kept[system],
                pruned[system, begin:end],
            )
            rows[end:] -= factor[begin:end, end:].T @ errors
    return pruned


def _prune_chunk(weights, upper, kept, pruned):
    """Prunes the inputs of a chunk in turn; fills `pruned` and returns the errors."""
    errors = np.empty_like(weights)
    for begin in range(0, len(weights), _ROWS):
        end = min(begin + _ROWS, len(weights))
        for i in range(begin, end):
            np.multiply(weights[i], kept[i], out=pruned[i])
            np.subtract(weights[i], pruned[i], out=errors[i])
            errors[i] /= upper[i, i]
            if i + 1 < end:
                weights[i + 1 : end] -= upper[i, i + 1 : end, None] * errors[i]
        weights[end:] -= upper[begin:end, end:].T @ errors[begin:end]
    return errors


def _chunks(units):
    """List of integers: the bounds of chunks. No unit crosses a bound."""
    starts = units.row_starts()
    bounds = [0]
    for start in starts:
        if start - bounds[-1] >= _CHUNK:
            bounds.append(int(start))
    return [*bounds, units.shape[1]]


def inverse_factor(h):
    """The upper triangular matrix U such that U'U is the inverse of a positive definite matrix."""
    flipped = np.linalg.cholesky(h[::-1, ::-1])
    return _inverse_of_upper(np.ascontiguousarray(flipped[::-1, ::-1]))


def _inverse_of_upper(r):
    """The inverse of an upper triangular matrix, by recursive halving."""
    size = len(r)
    if size <= 64:
        return np.triu(np.linalg.inv(r))
    half = size // 2
    inverse = np.zeros_like(r)
    inverse[:half, :half] = _inverse_of_upper(r[:half, :half])
    inverse[half:, half:] = _inverse_of_upper(r[half:, half:])
    inverse[:half, half:] = -inverse[:half, :half] @ (r[:half, half:] @ inverse[half:, half:])
    return inverse
