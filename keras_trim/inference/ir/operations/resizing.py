"""Image resizing."""

import dataclasses

from keras_trim.inference.ir.operations.base import Operation
from keras_trim.inference.ir.validation import require_integers


@dataclasses.dataclass
class Resize(Operation):
    """Resizes images, (batch, height, width, channels).

    The center of output pixel i is at (i + 0.5) * input size / output size - 0.5.

    Args:
        size: Pair of integers.
        is_factor: Boolean. Whether `size` is a factor rather than the output size.
        is_blend: Boolean. Whether to interpolate bilinearly, not take the nearest pixel.
    """

    size: tuple
    is_factor: bool
    is_blend: bool

    def check(self):
        require_integers(self.size, 2, 1)
