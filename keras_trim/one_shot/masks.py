"""Which steps of a sequence are padding, by the masks that Keras hands from layer to layer.

A layer's mask comes with its input or as an argument of its call. A layer inside another one, such
as the products of an attention, takes that of the layer around it.
"""

import contextlib
import inspect

import numpy as np
from keras import ops
from keras.src import backend

# Arguments of Keras's layers, and of KerasHub's, that hold the mask of the first input.
_ARGUMENTS = ("mask", "query_mask", "padding_mask", "decoder_padding_mask")


class Masks:
    """The masks of the calls that are under way, the innermost last."""

    def __init__(self):
        self._around = []

    @contextlib.contextmanager
    def inside(self, call, args, kwargs):
        """A context in which a layer's mask counts for the layers that it calls."""
        self._around.append(_own(call, args, kwargs))
        try:
            yield
        finally:
            self._around.pop()

    def of(self, call, args, kwargs, x):
        """The mask of a layer's first input, a tensor of its leading axes; `None` without one.

        Args:
            call: The layer's bound method `call`.
            args, kwargs: What it is called with.
            x: The first input.
        """
        masks = [_own(call, args, kwargs), *reversed(self._around)]
        return next((mask for mask in masks if mask is not None and _fits(mask, x)), None)


def _own(call, args, kwargs):
    given = inspect.signature(call).bind_partial(*args, **kwargs).arguments
    masks = [given.get(name) for name in _ARGUMENTS]
    if given:
        masks.append(backend.get_keras_mask(next(iter(given.values()))))
    return next((mask for mask in masks if hasattr(mask, "shape")), None)


def _fits(mask, x):
    axes = len(mask.shape)
    return axes < len(x.shape) and tuple(mask.shape) == tuple(x.shape[:axes])


@contextlib.contextmanager
def kept(tensors):
    """A context after which tensors have the masks they had before.

    Attention takes the masks off its inputs while it runs, and a run that ends within it would
    leave them without.
    """
    masks = [(x, backend.get_keras_mask(x)) for x in tensors]
    try:
        yield
    finally:
        for x, mask in masks:
            if backend.get_keras_mask(x) is not mask:
                backend.set_keras_mask(x, mask)


def to_bool(mask):
    """A mask as a NumPy array of Booleans."""
    return np.asarray(ops.convert_to_numpy(mask)).astype(bool)


def spread(mask, shape):
    """Float32 array of a shape, 1 where a mask of its leading axes is true."""
    mask = mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
    return np.broadcast_to(mask, shape).astype("float32")


def all_padding(layer):
    """The error that says that a layer sees nothing but padding."""
    return ValueError(
        "`calibration_data` is nothing but padding: give examples with steps that are not masked. "
        f"Received: no such input of '{layer.name}'"
    )
