"""The method `"reconstruct"`: sparse weights whose outputs are closest to the targets."""

import numpy as np

from keras_trim.one_shot.admm import admm_mask
from keras_trim.one_shot.moments import anchor, damped
from keras_trim.one_shot.refit import refit
from keras_trim.one_shot.sparsegpt import sparsegpt

# Beyond this many inputs, the eigenvectors and the hundreds of products of ADMM take minutes.
LARGE = 2048
_LARGE_STEPS = 20


def reconstruct(weights, h, c, units, damping=0.01):
    """Chooses a mask and solves for the kept weights.

    ADMM chooses the mask, and conjugate gradients solve for the weights. In products with more than
    `LARGE` inputs, SparseGPT prunes the dense solution for the targets, and conjugate gradients
    refine its result in a few steps.

    Args:
        weights: Float64 array (systems, inputs, outputs): the dense weights.
        h: Float64 array (systems, inputs, inputs): second moments of the inputs.
        c: Float64 array (systems, inputs, outputs): second moments of inputs and targets.
        units: `Units`.
        damping: Float. How strongly weights are held near their dense values, as a fraction of the
            mean of `h`'s diagonal.

    Returns:
        Float64 array (systems, inputs, outputs), zero where weights are pruned or were zero.
    """
    alive = weights != 0
    if weights.shape[1] <= LARGE:
        return refit(weights, admm_mask(weights, h, c, units, damping) & alive, h, c, damping)
    solution = np.linalg.solve(damped(h, damping), c + anchor(h, damping) * weights)
    pruned = sparsegpt(solution * alive, h, units, damping)
    return refit(weights, pruned != 0, h, c, damping, pruned, _LARGE_STEPS)
