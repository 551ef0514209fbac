"""Second moments of what reaches a layer, and of what it shall give."""

import numpy as np

from keras_trim.one_shot.masks import spread, to_bool

# Bytes of unfolded inputs that are held at a time.
_SLICE = 64 * 2**20


class Moments:
    """Sums over samples: of inputs, outputs, and their products, in float64.

    Args:
        product: `Product`.
        has_targets: Whether outputs are to be summed as well.
    """

    def __init__(self, product, has_targets=True):
        systems, inputs, outputs = product.shape
        self.product = product
        self.count = 0
        self._x = np.zeros((systems, inputs))
        self._xx = np.zeros((systems, inputs, inputs))
        self._y = self._xy = None
        if has_targets:
            self._y = np.zeros((systems, outputs))
            self._xy = np.zeros((systems, inputs, outputs))

    def add(self, x, target=None, mask=None):
        """Adds what the layer was called with once.

        Args:
            x: Tensor. What reaches it in the pruned network.
            target: Tensor of the same shape. What reaches it in the dense network.
            mask: Tensor of the leading axes of `x`, false where a step is padding, which does not
                count. A window of a convolution counts if any of its steps does.
        """
        mask = None if mask is None else to_bool(mask)
        step = max(1, _SLICE // max(self.product.row_bytes(x), 1))
        for start in range(0, x.shape[0], step):
            part = slice(start, start + step)
            counted = slice(None)
            if mask is not None:
                ones = spread(mask[part], tuple(x[part].shape))
                counted = self.product.rows(ones).any(axis=(0, 2))
            rows = self.product.rows(x[part])[:, counted]
            self.count += rows.shape[1]
            self._x += rows.sum(1)
            for own, total in zip(rows, self._xx, strict=True):
                total += own.T @ own
            if target is not None:
                y = self.product.outputs(target[part], self.product.variable)[:, counted]
                self._y += y.sum(1)
                self._xy += rows.swapaxes(1, 2) @ y

    @property
    def is_finite(self):
        sums = (self._xx, self._xy)
        return all(total is None or np.isfinite(total).all() for total in sums)

    @property
    def mean_x(self):
        """Array (systems, inputs)."""
        return self._x / self.count

    @property
    def mean_y(self):
        """Array (systems, outputs)."""
        return self._y / self.count

    def inputs(self, is_centered):
        """Array (systems, inputs, inputs): second moments of the inputs, about the mean or 0."""
        moments = self._xx / self.count
        if is_centered:
            moments -= self.mean_x[:, :, None] * self.mean_x[:, None, :]
        return moments

    def targets(self, is_centered):
        """Array (systems, inputs, outputs): inputs times outputs, about the means or 0."""
        moments = self._xy / self.count
        if is_centered:
            moments -= self.mean_x[:, :, None] * self.mean_y[:, None, :]
        return moments


def damped(h, damping):
    """Second moments with a share of their mean diagonal added, so that they can be inverted."""
    return h + anchor(h, damping) * np.eye(h.shape[-1])


def anchor(h, damping):
    """Array (systems, 1, 1): what `damped` adds; one where all inputs are zero."""
    mean = np.trace(h, axis1=1, axis2=2) / h.shape[-1]
    return damping * np.where(mean > 0, mean, 1.0)[:, None, None]
