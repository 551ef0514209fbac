"""Wanda: scores a weight by its magnitude times the norm of its input.

Sun, Liu, Bair and Kolter, "A Simple and Effective Pruning Approach for Large Language Models",
https://arxiv.org/abs/2306.11695, section 3: each output is pruned separately.
"""

import numpy as np


def wanda(weights, h, units):
    """Prunes a product by magnitude times input norm; does not change the kept weights.

    Args:
        weights: Float64 array (systems, inputs, outputs).
        h: Float64 array (systems, inputs, inputs): second moments of the inputs, about 0.
        units: `Units`.

    Returns:
        Float64 array (systems, inputs, outputs), zero where weights are pruned.
    """
    scores = weights**2 * np.diagonal(h, axis1=1, axis2=2)[:, :, None]
    if units.group is None and (units.height, units.width) == (1, 1):
        return weights * _keep_in_outputs(scores, units.num_pruned)
    return weights * units.keep(scores)


def _keep_in_outputs(scores, num_pruned):
    """Prunes equally many inputs of each output; the first outputs get the remainder."""
    systems, inputs, outputs = scores.shape
    columns = scores.swapaxes(1, 2).reshape(systems * outputs, inputs)
    each, left_over = divmod(num_pruned, systems * outputs)
    ranks = np.argsort(np.argsort(-columns, axis=1, kind="stable"), axis=1, kind="stable")
    kept = inputs - each - (np.arange(systems * outputs) < left_over)
    keep = ranks < kept[:, None]
    return keep.reshape(systems, outputs, inputs).swapaxes(1, 2)
