"""Least squares for the kept weights."""

import numpy as np

from keras_trim.one_shot.moments import anchor, damped

_STEPS = 200
_TOLERANCE = 1e-8


def refit(weights, mask, h, c, damping=0.01, start=None, steps=_STEPS):
    """The masked weights whose outputs are closest to the targets.

    Runs conjugate gradients for all outputs at once, preconditioned by the diagonal.

    Args:
        weights: Float64 array (systems, inputs, outputs): the dense weights; `damping` keeps the
            result near them.
        mask: Bool array of that shape, True where a weight is kept.
        h: Float64 array (systems, inputs, inputs): second moments of the inputs.
        c: Float64 array (systems, inputs, outputs): second moments of inputs and targets.
        damping: Float. A fraction of the mean of `h`'s diagonal.
        start: Array of that shape, the starting point; `weights` by default.
        steps: Integer. Maximum number of steps.

    Returns:
        Float64 array (systems, inputs, outputs), zero where the mask is False.
    """
    a, b = damped(h, damping), c + anchor(h, damping) * weights
    inverse_diagonal = 1 / np.diagonal(a, axis1=1, axis2=2)[:, :, None]
    x = np.where(mask, weights if start is None else start, 0.0)
    residual = (b - a @ x) * mask
    direction = z = residual * inverse_diagonal
    size = (residual * z).sum(1, keepdims=True)
    goal = _TOLERANCE**2 * ((b * mask) ** 2 * inverse_diagonal).sum(1, keepdims=True)
    for _ in range(steps):
        if (size <= goal).all():
            break
        product = (a @ direction) * mask
        step = size / ((direction * product).sum(1, keepdims=True) + 1e-300)
        x += step * direction
        residual -= step * product
        z = residual * inverse_diagonal
        new = (residual * z).sum(1, keepdims=True)
        direction = z + new / (size + 1e-300) * direction
        size = new
    return x
