"""Instructions for windows that move over each plane separately."""

import dataclasses
import functools
import math

import numpy as np

from keras_trim.inference.kernels.dwconv.padded import KINDS
from keras_trim.inference.kernels.dwconv.rolling import MOST_BEFORE
from keras_trim.inference.kernels.dwconv.rolling import WINDOWS as ROLLING_WINDOWS
from keras_trim.inference.kernels.instructions import (
    DWCONV_MASKED,
    DWCONV_PADDED,
    DWCONV_ROLLING,
    DWCONV_SMALL,
)
from keras_trim.inference.kernels.lane_masks import MOST_MASKS, masks_of_taps
from keras_trim.inference.kernels.llvm import LANES
from keras_trim.inference.lowering.autotuning import select
from keras_trim.inference.lowering.clip import Clip
from keras_trim.inference.lowering.geometry import Geometry, planes_together, spatial
from keras_trim.inference.program.tensors import SLACK, Tensor, round_up


@dataclasses.dataclass
class SlidingWindow:
    """A reduction over the windows of each plane.

    Args:
        kind: String: "product", "sum" or "maximum".
        x, y: `Tensor`s, NCHW.
        geometry: `Geometry` of the windows.
        values: Array, float32. The weights of a product, (outputs, taps), or the factors of a sum,
            (pixels,).
        bias: Array, float32, (outputs,), of a product.
        clip: `Clip`.
        pad_value: Float. The value outside of the image.
    """

    kind: str
    x: Tensor
    y: Tensor
    geometry: Geometry
    values: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    bias: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    clip: Clip = dataclasses.field(default_factory=Clip)
    pad_value: float = 0.0

    def emit(self, builder):
        """Emits the fastest candidate; returns its name."""
        candidates = {}
        if self._window in ROLLING_WINDOWS and self.geometry.left <= MOST_BEFORE:
            candidates["rolling"] = self._rolling
        elif self.kind == "product" or not self._can_be_masked:
            candidates["padded"] = self._padded
        if self._can_be_masked:
            candidates["masked"] = self._masked
        if self.kind == "product" and self._whole_taps is not None:
            candidates["small"] = self._small
        geometry = self.geometry
        workload = (
            "depthwise" if self.kind == "product" else "pooling", self.kind, self.x.shape,
            self.y.shape, geometry.kernel, geometry.strides, geometry.dilation, geometry.padding,
        )  # fmt: skip
        name, _ = select(
            builder,
            list(candidates),
            lambda name, builder: candidates[name](builder),
            workload,
            self.x,
        )
        return name

    @property
    def _window(self):
        """(kind, size, stride) if equal on both axes and without dilation, else `None`."""
        sizes, strides = set(self.geometry.kernel), set(self.geometry.strides)
        if len(sizes) == len(strides) == 1 and tuple(self.geometry.dilation) == (1, 1):
            return (self.kind, *sizes, *strides)
        return None

    @property
    def _is_direct(self):
        """Whether windows move by one pixel, and output lines are as long as the image's."""
        geometry = self.geometry
        return geometry.strides == (1, 1) and geometry.out_width == spatial(self.x)[1]

    @property
    def _can_be_masked(self):
        """Whether each output's window is at a pixel of the image, and masks are few enough."""
        geometry, image = self.geometry, spatial(self.x)
        outputs = geometry.out_height, geometry.out_width
        pixels = max(np.prod(image), np.prod(outputs))
        if pixels * geometry.kernel[0] * geometry.kernel[1] > MOST_MASKS:
            return False
        axes = zip(outputs, geometry.strides, image, strict=True)
        return self._is_direct or (
            self.kind == "product" and all((n - 1) * stride < size for n, stride, size in axes)
        )

    @functools.cached_property
    def _whole_taps(self):
        """The tap between each pixel of x and each of y, (pixels of x, pixels of y).

        `None` if a window leaves out a pixel, which may be infinite, or if y is more than a vector.
        """
        geometry, image = self.geometry, spatial(self.x)
        outputs = geometry.out_height, geometry.out_width
        if geometry.input_dilation != (1, 1) or math.prod(outputs) > LANES:
            return None
        taps, starts = [], (geometry.top, geometry.left)
        axes = zip(
            image, outputs, starts, geometry.strides, geometry.dilation, geometry.kernel,
            strict=True,
        )  # fmt: skip
        for size, out, start, stride, dilation, kernel in axes:
            moves = np.arange(size)[:, None] + start - stride * np.arange(out)
            if np.any((moves < 0) | (moves % dilation != 0) | (moves >= kernel * dilation)):
                return None
            taps.append(moves // dilation)
        rows, columns = taps
        number = rows[:, None, :, None] * geometry.kernel[1] + columns[None, :, None, :]
        return number.reshape(math.prod(image), math.prod(outputs))

    def _emit(self, builder, instruction, **operands):
        x, y, geometry = self.x, self.y, self.geometry
        taps = geometry.kernel[0] * geometry.kernel[1]
        height, width = spatial(x)
        builder.emit(
            instruction, x=x, x_sample=x.sample_size, x_plane=x.plane, y=y, y_sample=y.sample_size,
            y_plane=y.plane, batch=x.batch, channels=x.channels, height=height, width=width,
            multiplier=y.channels // x.channels, out_height=geometry.out_height,
            out_width=geometry.out_width, top=geometry.top, left=geometry.left,
            stride_y=geometry.strides[0], stride_x=geometry.strides[1],
            kind=KINDS.index(self.kind), taps=taps,
            # The kernel reads factors in whole vectors.
            values=builder.constant(np.append(self.values, np.zeros(LANES))),
            num_values=taps if self.kind == "product" else 0, bias=builder.constant(self.bias),
            flags=self.clip.flag, low=self.clip.low, high=self.clip.high, pad_value=self.pad_value,
            **operands,
        )  # fmt: skip

    def _rolling(self, builder):
        """Emits the instruction that works on the image itself, line by line."""
        x, (_, _, stride) = self.x, self._window
        reach = stride * round_up(self.geometry.out_width) + 3 * LANES  # from a line's first column
        x.require_slack(SLACK + reach - spatial(x)[1])
        others, others_size = builder.scratch(MOST_BEFORE + reach)
        number = ROLLING_WINDOWS.index(self._window)
        self._emit(builder, DWCONV_ROLLING, number=number, others=others, others_size=others_size)

    def _padded(self, builder):
        """Emits the instruction that works on a padded copy, line by line."""
        geometry = self.geometry
        phases = geometry.phases[0] * geometry.phases[1]
        together = planes_together(geometry)
        scratch, scratch_size = builder.scratch(
            together * phases * geometry.plane + round_up(geometry.out_width)
        )
        offsets = geometry.tap_offsets()
        # After the offsets comes the table: one group with all taps.
        index = builder.index([*offsets, 0, len(offsets), 0])
        self._emit(
            builder, DWCONV_PADDED, rows=geometry.rows, row=geometry.row, offsets=index,
            scratch=scratch, scratch_size=scratch_size, padded_plane=geometry.plane,
            phases_y=geometry.phases[0], phases_x=geometry.phases[1], together=together,
        )  # fmt: skip

    def _small(self, builder):
        """Emits the instruction that multiplies all pixels of a plane by a matrix."""
        x, y, taps = self.x, self.y, self._whole_taps
        height, width = spatial(x)
        matrices = np.zeros((y.channels, len(taps), LANES), np.float32)
        matrices[:, :, : taps.shape[1]] = self.values[:, taps]
        builder.emit(
            DWCONV_SMALL, x=x, x_sample=x.sample_size, x_plane=x.plane, y=y,
            y_sample=y.sample_size, y_plane=y.plane, batch=x.batch, channels=x.channels,
            height=height, width=width, multiplier=y.channels // x.channels, pixels=len(taps),
            values=builder.constant(matrices), bias=builder.constant(self.bias),
            flags=self.clip.flag, low=self.clip.low, high=self.clip.high,
        )  # fmt: skip

    def _masked(self, builder):
        """Emits the instruction that works on whole planes with lane masks."""
        geometry, image = self.geometry, spatial(self.x)
        taps = np.indices(geometry.kernel).reshape(2, -1).T * geometry.dilation
        # With strides or another width, windows are computed at every pixel of the image.
        rows = geometry.out_height if self._is_direct else image[0]
        shifts, masks = masks_of_taps(*image, taps - (geometry.top, geometry.left), rows)
        size = 0 if self._is_direct else masks.shape[1] * LANES
        scratch, scratch_size = builder.scratch(size) if size else (0, 0)
        self._emit(
            builder, DWCONV_MASKED, shifts=builder.index(shifts), masks=builder.short_index(masks),
            vectors=masks.shape[1], scratch=scratch, scratch_size=scratch_size,
        )  # fmt: skip
