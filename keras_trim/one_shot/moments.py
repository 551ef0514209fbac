"""Second moments of a layer's inputs and target outputs."""

import numpy as np

from keras_trim.one_shot.masks import spread, to_bool

# Limit on the bytes of float64 inputs, unfolded or not, in memory at a time.
SLICE = 64 * 2**20


class Moments:
    """Sums over samples: of inputs, outputs, and their products, in float64.

    Args:
        product: `Product`.
        has_targets: Boolean. Whether to sum target outputs as well.
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
        """Adds one call of the layer.

        Args:
            x: Tensor. The input in the pruned network.
            target: Tensor of the same shape. The input in the dense network.
            mask: Tensor of the leading axes of `x`, False for padding, which is skipped. The window
                of a convolution counts unless all of its steps are padding.
        """
        mask = None if mask is None else to_bool(mask)
        step = max(1, SLICE // max(self.product.row_bytes(x), 1))
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
    """Second moments plus a fraction of their mean diagonal, which makes them invertible."""
    return h + anchor(h, damping) * np.eye(h.shape[-1])


def anchor(h, damping):
    """Array (systems, 1, 1): the amount `damped` adds; `damping` if all inputs are zero."""
    mean = np.trace(h, axis1=1, axis2=2) / h.shape[-1]
    return damping * np.where(mean > 0, mean, 1.0)[:, None, None]
