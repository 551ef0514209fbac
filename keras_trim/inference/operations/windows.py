"""Instructions for windows that move over planes, each plane for itself."""

import dataclasses

import numpy as np

from keras_trim.inference.kernels.edges import MOST_MASKS, masks_of_taps
from keras_trim.inference.kernels.lines import MOST_BEFORE
from keras_trim.inference.kernels.lines import WINDOWS as WINDOWS_OF_LINES
from keras_trim.inference.kernels.vector import LANES
from keras_trim.inference.kernels.windows import KINDS
from keras_trim.inference.operations.base import Clip
from keras_trim.inference.operations.convolution import Geometry, planes_together, spatial
from keras_trim.inference.tensors import SLACK, Tensor, round_up


@dataclasses.dataclass
class Windows:
    """What is made of the windows of each plane.

    Args:
        kind: String: "product", "sum" or "maximum".
        x, y: `Tensor`s, in planes.
        geometry: `Geometry` of the windows.
        values: Array, float32: of a product the weights, (outputs, taps); what sums are multiplied
            with, (pixels,).
        bias: Array, float32, (outputs,), of a product.
        clip: `Clip`.
        outside: Float. What is outside of the image.
    """

    kind: str
    x: Tensor
    y: Tensor
    geometry: Geometry
    values: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    bias: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    clip: Clip = dataclasses.field(default_factory=Clip)
    outside: float = 0.0

    def emit(self, builder):
        """Emits the fastest of the instructions that compute them; returns its name."""
        ways = {}
        if self._window in WINDOWS_OF_LINES and self.geometry.left <= MOST_BEFORE:
            ways["lines"] = self._lines
        elif self.kind == "product" or not self._can_be_flat:
            ways["padded"] = self._padded
        if self._can_be_flat:
            ways["flat"] = self._flat
        geometry = self.geometry
        way = builder.tuner.fastest(
            list(ways),
            lambda way, builder: ways[way](builder),
            likeness=(
                self.kind, self.x.shape, self.y.shape, geometry.kernel, geometry.strides,
                geometry.dilation, geometry.padding,
            ),
            x=self.x, num_threads=builder.num_threads,
        )  # fmt: skip
        ways[way](builder)
        return way

    @property
    def _window(self):
        """(kind, size, stride) if both axes have the same, and windows no gaps; else `None`."""
        sizes, strides = set(self.geometry.kernel), set(self.geometry.strides)
        if len(sizes) == len(strides) == 1 and tuple(self.geometry.dilation) == (1, 1):
            return (self.kind, *sizes, *strides)
        return None

    @property
    def _is_direct(self):
        """Whether a window at each pixel of the image is what is asked for."""
        geometry = self.geometry
        return geometry.strides == (1, 1) and geometry.out_width == spatial(self.x)[1]

    @property
    def _can_be_flat(self):
        """Whether each output has its window at a pixel of the image, and masks are not many."""
        geometry, image = self.geometry, spatial(self.x)
        outputs = geometry.out_height, geometry.out_width
        pixels = max(np.prod(image), np.prod(outputs))
        if pixels * geometry.kernel[0] * geometry.kernel[1] > MOST_MASKS:
            return False
        axes = zip(outputs, geometry.strides, image, strict=True)
        return self._is_direct or (
            self.kind == "product" and all((n - 1) * stride < size for n, stride, size in axes)
        )

    def _operands(self, builder):
        """The operands of all three instructions."""
        x, y, geometry = self.x, self.y, self.geometry
        taps = geometry.kernel[0] * geometry.kernel[1]
        return [
            x, x.sample_size, x.plane, y, y.sample_size, y.plane, x.batch, x.channels, *spatial(x),
            y.channels // x.channels, geometry.out_height, geometry.out_width, geometry.top,
            geometry.left, *geometry.strides, KINDS.index(self.kind), taps,
            # Factors are read in whole vectors.
            builder.constant(np.append(self.values, np.zeros(LANES))),
            taps if self.kind == "product" else 0, builder.constant(self.bias), self.clip.flag,
        ]  # fmt: skip

    def _emit(self, builder, name, operands):
        factors = [self.clip.low, self.clip.high, self.outside]
        builder.emit(f"windows_{name}", [*self._operands(builder), *operands], factors)

    def _lines(self, builder):
        """Emits the instruction that works line by line on the image itself."""
        x, (_, _, stride) = self.x, self._window
        reach = stride * round_up(self.geometry.out_width) + 3 * LANES  # from a line's first column
        x.require_slack(SLACK + reach - spatial(x)[1])
        others, others_size = builder.scratch(MOST_BEFORE + reach)
        number = WINDOWS_OF_LINES.index(self._window)
        self._emit(builder, "lines", [number, others, others_size])

    def _padded(self, builder):
        """Emits the instruction that works line by line on a padded copy."""
        geometry = self.geometry
        phases = geometry.phases[0] * geometry.phases[1]
        together = planes_together(geometry)
        scratch, scratch_size = builder.scratch(
            together * phases * geometry.plane + round_up(geometry.out_width)
        )
        offsets = geometry.tap_offsets()
        # Behind them, one group of all taps.
        index = builder.index([*offsets, 0, len(offsets), 0])
        self._emit(
            builder,
            "padded",
            [
                geometry.rows, geometry.row, index, scratch, scratch_size, geometry.plane,
                *geometry.phases, together,
            ],
        )  # fmt: skip

    def _flat(self, builder):
        """Emits the instruction that works on whole planes with masks."""
        geometry, image = self.geometry, spatial(self.x)
        taps = np.indices(geometry.kernel).reshape(2, -1).T * geometry.dilation
        # Where strides or columns differ, windows are computed at every pixel of the image.
        rows = geometry.out_height if self._is_direct else image[0]
        shifts, masks = masks_of_taps(*image, taps - (geometry.top, geometry.left), rows)
        size = 0 if self._is_direct else masks.shape[1] * LANES
        scratch = builder.scratch(size) if size else (0, 0)
        operands = [builder.index(shifts), builder.short_index(masks), masks.shape[1], *scratch]
        self._emit(builder, "flat", operands)
