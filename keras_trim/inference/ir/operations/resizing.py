"""Images of another size."""

import dataclasses

from keras_trim.inference.ir.operations.base import Operation
from keras_trim.inference.ir.validation import require_integers


@dataclasses.dataclass
class Resize(Operation):
    """Images, (batch, height, width, channels), of another size.

    Pixels are squares, so the middle of output pixel i is at (i + 0.5) * size / output size - 0.5.

    Args:
        size: Pair of integers.
        is_factor: Boolean. Whether the size is that of the input times `size`.
        is_blend: Boolean. Whether a pixel is a blend of those around it (bilinear), or the nearest.
    """

    size: tuple
    is_factor: bool
    is_blend: bool

    def check(self):
        require_integers(self.size, 2, 1)
