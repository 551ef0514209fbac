"""Tensors of a program: shapes, layouts, and places in the arena."""

import dataclasses
import math

import numpy as np

from keras_trim.inference.kernels.llvm import LANES, LINE

SLACK = 2 * LANES  # floats past its end that a kernel may read and write
_CROWDED = 16  # lines; planes whose size is a multiple compete for the same cache sets
_MOST_AXES = 16
_MOST_PLACES = 1 << 44  # elements of a tensor, not counting empty axes; offsets fit 64 bits


def round_up(size, multiple=LANES):
    return -(-size // multiple) * multiple


def plane_size(pixels):
    """Floats from one plane to the next, chosen so that caches hold many planes.

    The low bits of an address select the cache set, so only a few planes that are a power of two
    apart would fit.
    """
    lines = -(-pixels // LINE)
    return (lines + 1 if lines and lines % _CROWDED == 0 else lines) * LINE


class Tensor:
    """A value of the program.

    `shape` is (N, ..., C) in both layouts. NHWC is NumPy's order, for any rank. In NCHW, for rank 3
    and more, memory holds N x C planes of `plane` floats each, the pixels first and then padding.
    """

    def __init__(self, shape, layout, dtype="float32"):
        self.shape = tuple(int(n) for n in shape)
        if not (
            1 <= len(self.shape) <= _MOST_AXES
            and min(self.shape) >= 0
            and math.prod(max(n, 1) for n in self.shape) <= _MOST_PLACES
        ):
            raise ValueError(f"an impossible shape. Received: {self.shape}")
        self.layout = layout
        self.dtype = dtype
        self.slack = SLACK
        self.pixels = int(np.prod(self.shape[1:-1]))
        self.plane = plane_size(self.pixels) if layout == "NCHW" else 0
        self._whole, self._start = None, 0  # the tensor that this one is a view of; offset in it
        self._is_continued = False
        self.offset = None  # in the arena, in floats; set by the memory planner

    def lie_in(self, whole, start):
        """Makes this tensor a view of another one, `start` floats from its beginning."""
        self._whole, self._start = whole, start
        self.require_slack(self.slack)

    @property
    def can_lie_elsewhere(self):
        """Whether it may become a view: it owns its memory, and no tensor extends past its end."""
        return self._whole is None and not self._is_continued

    def continue_as(self, tensor):
        """Makes `tensor` begin where this one does and extend past it; returns whether it did.

        Works once per base, and only if this view ends where its base does.
        """
        base = self.base
        if base is self or base._is_continued or self.end != base.size:
            return False
        base._is_continued = True
        tensor.lie_in(self, 0)
        return True

    def require_slack(self, floats):
        """Reserves `floats` floats after this tensor."""
        self.base.slack = max(self.base.slack, self.end + floats - self.base.size)

    @property
    def base(self):
        """The tensor that owns the memory, possibly itself."""
        x = self
        while x._whole is not None:  # views of views may be thousands deep
            x = x._whole
        return x

    @property
    def start(self):
        """Where it begins in `base`."""
        x, total = self, 0
        while x._whole is not None:
            x, total = x._whole, total + x._start
        return total

    @property
    def end(self):
        """Where it ends in `base`, possibly past the end of that."""
        return self.start + self.size

    @property
    def batch(self):
        return self.shape[0]

    @property
    def channels(self):
        return self.shape[-1]

    @property
    def sample_size(self):
        """Floats from one sample to the next."""
        if self.layout == "NCHW":
            return self.channels * self.plane
        return int(np.prod(self.shape[1:]))

    @property
    def size(self):
        return self.batch * self.sample_size

    @property
    def strides(self):
        """Floats from one element to the next along each axis of `shape`."""
        if self.layout == "NCHW":
            spatial = _row_strides(self.shape[1:-1])
            return (self.sample_size, *spatial, self.plane)
        return _row_strides(self.shape)


class Band(Tensor):
    """A view of some rows of an image, in a batch of one.

    Args:
        tensor: `Tensor`, (1, height, width, channels).
        first, last: Integers. The first row, and the one after the last.
    """

    def __init__(self, tensor, first, last):
        _, _, width, channels = tensor.shape
        super().__init__((1, last - first, width, channels), tensor.layout, tensor.dtype)
        self.plane = tensor.plane
        self.lie_in(tensor, first * (width if tensor.layout == "NCHW" else width * channels))

    @property
    def end(self):
        return self._whole.end


def view_of(x):
    """A view of a whole tensor."""
    y = Tensor(x.shape, x.layout, x.dtype)
    y.lie_in(x, 0)
    return y


def channels_of(x, first, last):
    """A view of some channels of an NCHW image, in a batch of one."""
    y = Tensor((*x.shape[:-1], last - first), "NCHW")
    y.lie_in(x, first * x.plane)
    return y


def _row_strides(shape):
    return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))


@dataclasses.dataclass
class Place:
    """A place within a tensor, as an operand."""

    tensor: Tensor
    offset: int
