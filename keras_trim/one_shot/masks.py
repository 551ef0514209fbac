"""Finds the steps of a sequence that are padding, from the masks that Keras passes between layers.

A layer gets its mask with its input or as an argument. A layer inside another one, such as the
dense layers of attention, uses the mask of the outer layer.
"""

import contextlib
import inspect

import numpy as np
from keras import ops
from keras.src import backend

# Arguments of Keras's layers, and of KerasHub's, that hold the mask of the first input.
_ARGUMENTS = ("mask", "query_mask", "padding_mask", "decoder_padding_mask")


class Masks:
    """The masks of the calls on the stack, innermost last."""

    def __init__(self):
        self._around = []

    @contextlib.contextmanager
    def inside(self, call, args, kwargs):
        """A context in which a layer's mask applies to the layers that it calls."""
        self._around.append((_own(call, args, kwargs), _by_argument(call, args, kwargs)))
        try:
            yield
        finally:
            self._around.pop()

    def of(self, call, args, kwargs, x):
        """The mask of a layer's first input, with the leading axes of that; or `None`.

        Args:
            call: The layer's bound method `call`.
            args, kwargs: Its arguments.
            x: The first input.
        """
        masks = [_own(call, args, kwargs)]
        masks += [others.get(id(x), own) for own, others in reversed(self._around)]
        return next((mask for mask in masks if mask is not None and _fits(mask, x)), None)


def _by_argument(call, args, kwargs):
    """Dict: id of a tensor that is an argument other than the first -> its mask or `None`.

    The keys and values of attention have masks other than that of the queries.
    """
    given = _given(call, args, kwargs)
    found = {}
    for name, x in list(given.items())[1:]:
        names = (f"{name}_mask", name.replace("sequence", "padding_mask"))
        masks = [*(given.get(own) for own in names if own != name), backend.get_keras_mask(x)]
        found[id(x)] = next((mask for mask in masks if hasattr(mask, "shape")), None)
    if given:
        found.pop(id(next(iter(given.values()))), None)  # the first may be given twice
    return found


def _given(call, args, kwargs):
    """Dict: name of an argument -> its value, in the order of the signature."""
    return inspect.signature(call).bind_partial(*args, **kwargs).arguments


def _own(call, args, kwargs):
    given = _given(call, args, kwargs)
    masks = [given.get(name) for name in _ARGUMENTS]
    if given:
        masks.append(backend.get_keras_mask(next(iter(given.values()))))
    return next((mask for mask in masks if hasattr(mask, "shape")), None)


def _fits(mask, x):
    axes = len(mask.shape)
    return axes < len(x.shape) and tuple(mask.shape) == tuple(x.shape[:axes])


@contextlib.contextmanager
def kept(tensors):
    """Restores the masks of tensors on exit.

    Attention removes the masks of its inputs while it runs. Stopping a run inside it would lose
    them.
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
    """Float32 array of a shape, from a mask of its leading axes: 1 where that is True."""
    mask = mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
    return np.broadcast_to(mask, shape).astype("float32")


def all_padding(layer):
    """The error if a layer gets only padding."""
    return ValueError(
        "`calibration_data` is nothing but padding: give examples with steps that are not masked. "
        f"Received: no such input of '{layer.name}'"
    )
