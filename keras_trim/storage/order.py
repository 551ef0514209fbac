"""The order in which an array's values are stored."""

import numpy as np

_GROUPS = (4, 8)
_SAMPLE = 16  # indices of every other axis to look at
_MIN_GROUPS = 64
_MIN_DENSITY = 0.2  # below this density, groups are half empty by chance


def storage_order(values):
    """Chooses the order of axes in which to store an array.

    If zeros have an N:M pattern along an axis (at most half of every group is nonzero), that axis
    goes last. Groups then align with bytes of the bitmask, so only a few byte values occur (36 of
    256 at 2:4).

    Returns:
        Tuple of integers: axes, outermost first.
    """
    axes = tuple(range(values.ndim))
    for axis in reversed(axes[:-1]):
        for group in _GROUPS:
            if values.shape[axis] % group == 0 and _has_pattern(values, axis, group):
                return (*(other for other in axes if other != axis), axis)
    return axes


def _has_pattern(values, axis, group):
    sample = tuple(
        slice(None) if other == axis else slice(0, _SAMPLE) for other in range(values.ndim)
    )
    nonzero = np.moveaxis(values[sample], axis, -1).reshape(-1, group) != 0
    return (
        len(nonzero) >= _MIN_GROUPS
        and nonzero.mean() > _MIN_DENSITY
        and nonzero.sum(axis=1).max() <= group // 2
    )
