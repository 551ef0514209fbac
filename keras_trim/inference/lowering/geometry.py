"""How windows move over images: output sizes, padding, strides, and the offsets of taps."""

import dataclasses
import math

import numpy as np

from keras_trim.inference.ir.padding import padding_of
from keras_trim.inference.ir.validation import require
from keras_trim.inference.kernels.instructions import PAD
from keras_trim.inference.kernels.lane_masks import MOST_MASKS, masks_of_taps
from keras_trim.inference.kernels.layout.expand_compress import IS_AVAILABLE as HAS_EXPAND
from keras_trim.inference.kernels.layout.expand_compress import row_tables
from keras_trim.inference.kernels.llvm import LANES
from keras_trim.inference.program.tensors import SLACK, Tensor, plane_size, round_up


@dataclasses.dataclass
class Geometry:
    """How a window moves over planes that are padded and split into phases by the strides.

    The padded input has `phases` planes per channel, of `rows` x `row` pixels each.

    `x` may be NHWC if `can_split` says that `pad` accepts that.
    """

    x: Tensor
    kernel: tuple
    strides: tuple
    dilation: tuple
    padding: tuple  # per axis: "valid", "same", "causal" or a pair
    input_dilation: tuple = (1, 1)  # transposed convolutions: spacing of the input's pixels
    multiple: int = 1  # row lengths are rounded up to it, in pixels

    def __post_init__(self):
        height, width = self.image
        sizes = [(n - 1) * s + 1 for n, s in zip((height, width), self.input_dilation, strict=True)]
        axes = zip(self.padding, sizes, self.kernel, self.strides, self.dilation, strict=True)
        (self.out_height, top, _), (self.out_width, left, _) = (padding_of(*axis) for axis in axes)
        # The single row of a 1-D signal is not an axis of the output.
        require(len(self.x.shape) == 4 or self.out_height == 1, "a window of several rows")
        self.top, self.left = top, left
        reach = [(k - 1) * d for k, d in zip(self.kernel, self.dilation, strict=True)]
        self.phases = tuple(min(s, r + 1) for s, r in zip(self.strides, reach, strict=True))
        self.rows = self.out_height + reach[0] // self.strides[0]
        self.row = round_up(self.out_width + reach[1] // self.strides[1], self.multiple)
        # Leaves room for whole vectors after the last row, which may begin `left` pixels late.
        self.plane = plane_size(self.rows * self.row + max(left, 0) + LANES)
        self.is_plain = self.strides == self.input_dilation == (1, 1)
        is_unpadded = (self.top, self.left, self.row) == (0, 0, width) and self.rows <= height
        self.is_copied = not (self.is_plain and is_unpadded)
        self.is_pointwise = (
            self.kernel == (1, 1)
            and self.strides == (1, 1)
            and (top, left) == (0, 0)
            and (self.out_height, self.out_width) == (height, width)
        )
        # The copy of a row reads past its pixels, up to the end of its padding.
        pixel = 1 if self.x.layout == "NCHW" else self.x.channels  # in floats
        overrun = round_up(self.row) * min(self.strides[1], 2) - width
        self.x.require_slack(SLACK + pixel * overrun)

    @property
    def image(self):
        """(height, width) of the input."""
        return spatial(self.x)

    def in_vectors(self):
        """Returns the same geometry with rows of whole vectors."""
        return dataclasses.replace(self, multiple=LANES)

    def can_split(self, builder):
        """Whether `pad` takes the input in NHWC, as RGB images often come."""
        return self.is_copied and self.x.channels == 3 and builder.other_layout(self.x) is None

    def _taps(self):
        """Returns how far each tap reaches down, (taps,), and to the right, (taps,)."""
        y, x = np.divmod(np.arange(self.kernel[0] * self.kernel[1]), self.kernel[1])
        return y * self.dilation[0], x * self.dilation[1]

    def tap_offsets(self):
        """Returns where each tap reads within the planes of a channel, (taps,)."""
        y, x = self._taps()
        phase = y % self.strides[0] * self.phases[1] + x % self.strides[1]
        return phase * self.plane + y // self.strides[0] * self.row + x // self.strides[1]

    def tap_moves(self):
        """Returns how far to the right of the first tap each tap reads in its plane, (taps,)."""
        return self._taps()[1] // self.strides[1]

    @property
    def can_mask(self):
        """Whether output lines are as long as input lines, and there are few enough masks."""
        bits = self.rows * round_up(self.out_width) * math.prod(self.kernel)
        return self.is_plain and self.out_width == self.image[1] and bits <= MOST_MASKS

    def masked(self):
        """Returns where each tap reads in an unpadded image, and the lane masks for it.

        Returns:
            `(shifts, masks)`: as `tap_offsets`, and as for `packing.SparseColumns`.
        """
        taps = np.stack(self._taps(), axis=1) - (self.top, self.left)
        return masks_of_taps(*self.image, taps, self.out_height)

    def pad(self, builder):
        """Emits the padded copy, unless none is needed or an earlier layer made the same one;
        returns it and its floats per channel.
        """
        if not self.is_copied:
            return self.x, self.x.plane
        height, width = self.image
        channel = self.phases[0] * self.phases[1] * self.plane
        key = (
            self.x, self.plane, self.rows, self.row, self.top, self.left, self.strides,
            self.input_dilation, self.phases,
        )  # fmt: skip
        if key in builder.padded:
            return builder.padded[key], channel
        padded = Tensor((self.x.batch, self.x.channels * channel), "NHWC")
        builder.padded[key] = padded
        builder.require_memory(padded.size)
        tables = {}
        is_plain = self.x.layout == "NCHW" and self.is_plain
        if HAS_EXPAND and is_plain and self.left >= 0 and self.row >= self.left + width:
            starts, masks = row_tables(height, width, self.top, self.left, self.rows, self.row)
            tables = {
                "starts": builder.index(starts),
                "masks": builder.short_index(masks),
                "vectors": len(masks),
            }
        builder.emit(
            PAD, x=self.x, x_sample=self.x.sample_size, x_plane=self.x.plane,
            y=padded, y_sample=padded.sample_size, y_plane=channel,
            batch=self.x.batch, channels=self.x.channels, height=height, width=width,
            phase_plane=self.plane, row=self.row, rows=self.rows, top=self.top, left=self.left,
            stride_y=self.strides[0], stride_x=self.strides[1],
            input_dilation_y=self.input_dilation[0], input_dilation_x=self.input_dilation[1],
            phases_y=self.phases[0], phases_x=self.phases[1],
            **tables, value=0.0,
        )  # fmt: skip
        return padded, channel


_CACHE = 16 * 1024  # bytes of first-level cache for padded channels


def planes_together(geometry):
    """Returns how many channels to pad before they are computed.

    A vector load right after a store to part of the same memory stalls.
    """
    size = 4 * geometry.phases[0] * geometry.phases[1] * geometry.plane
    return max(1, min(8, _CACHE // size))


def spatial(x):
    """Returns (height, width) of a tensor of rank 4, or of rank 3, whose height is 1."""
    return (1, x.shape[1]) if len(x.shape) == 3 else x.shape[1:3]


def output_tensor(x, geometry, channels):
    size = (geometry.out_height, geometry.out_width)[-(len(x.shape) - 2) :]
    return Tensor((x.batch, *size, channels), "NCHW")
