"""Chooses a mask by ADMM, so that the kept weights can come close to the targets.

Meng, Behdin, Wang and Mazumder, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for
Large Language Models", https://arxiv.org/abs/2406.07831, section 3.1. Here the targets are the
outputs in the dense network, not the dense weights applied to the pruned network's activations.
"""

import numpy as np

from keras_trim.one_shot.moments import anchor, damped

_STEPS = 300
_RHO = 0.1


def admm_mask(weights, h, c, units, damping=0.01):
    """Bool array (systems, inputs, outputs), True where a weight is kept.

    Weights that are zero are the first to go, since they stay zero. Pulls the weights and their
    projection onto the pattern together with an increasing penalty, until the mask no longer
    changes.

    Args:
        weights: Float64 array (systems, inputs, outputs): the starting point.
        h: Float64 array (systems, inputs, inputs): second moments of the inputs.
        c: Float64 array (systems, inputs, outputs): second moments of inputs and targets.
        units: `Units`.
        damping: Float. How strongly weights are held near their dense values, as a fraction of the
            mean of `h`'s diagonal.
    """
    held = anchor(h, damping)
    scale = np.sqrt(np.diagonal(h, axis1=1, axis2=2)[:, :, None] + held)
    eigenvalues, vectors = np.linalg.eigh(damped(h, damping) / scale / scale.swapaxes(1, 2))
    eigenvalues = eigenvalues[:, :, None]
    rotated = vectors.swapaxes(1, 2)
    target = rotated @ ((c + held * weights) / scale)
    alive = weights != 0
    z = weights * scale
    z = z * units.keep(z**2)
    dual, kept, rho = np.zeros_like(z), z != 0, _RHO
    share = max(np.mean(kept), 1e-9)
    for step in range(_STEPS):
        free = vectors @ ((target + rotated @ (rho * z - dual)) / (eigenvalues + rho))
        z = (free + dual / rho) * alive
        now = units.keep(z**2)
        z *= now
        dual += rho * (free - z)
        if step % 3 == 2:
            changed = np.mean(now != kept) / share
            kept = now
            if not changed:
                break
            rho *= 1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1
    return now
