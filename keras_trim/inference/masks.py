"""Keras's masks while a model is read: which call they go into, and which come out of it.

Keras hangs a mask on a tensor and hands it to the layers that ask for it. Here a `Symbol` has it.
"""

import inspect

import keras
from keras import layers, tree


def with_masks(layer, args, kwargs):
    """`kwargs` with the masks of the arguments, where `layer.call` has a parameter for them."""
    if not isinstance(layer, layers.Layer):
        return kwargs
    signature = inspect.signature(layer.call)
    arguments = {
        name: value
        for name, value in signature.bind(*args, **kwargs).arguments.items()
        if not name.endswith("mask") and any(map(_is_symbol, tree.flatten(value)))
    }
    kwargs = dict(kwargs)
    for name, value in arguments.items():
        parameter = "mask" if len(arguments) == 1 else f"{name}_mask"
        masks = _masks(value)
        if parameter in signature.parameters and _any(masks) and kwargs.get(parameter) is None:
            kwargs[parameter] = masks
    return kwargs


class ComputeMask(keras.Operation):
    """The `compute_mask` of a layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs, masks):
        return self.layer.compute_mask(inputs, masks)


def output_masks(reader, layer, args, outputs):
    """The outputs with the masks that the layer gives them."""
    if not isinstance(layer, layers.Layer) or not layer.supports_masking or not args:
        return outputs
    masks = _masks(args[0])
    if type(layer).compute_mask is layers.Layer.compute_mask:
        if not _any(masks):
            return outputs
    elif not _any(masks) and not _makes_masks(layer):
        return outputs
    else:
        masks = reader.keras_call(ComputeMask(layer), (args[0], masks), {}, reader.name)
    flat, flat_masks = tree.flatten(outputs), tree.flatten(masks)
    if len(flat) > len(flat_masks):
        flat_masks = flat_masks + [None] * (len(flat) - len(flat_masks))
    return tree.pack_sequence_as(
        outputs, [y.with_mask(m) for y, m in zip(flat, flat_masks, strict=False)]
    )


def _makes_masks(layer):
    """Whether a layer masks inputs that had no mask."""
    return isinstance(layer, layers.Masking) or getattr(layer, "mask_zero", False)


def _is_symbol(x):
    return hasattr(x, "with_mask")


def _masks(structure):
    return tree.map_structure(lambda x: x.mask if _is_symbol(x) else None, structure)


def _any(masks):
    return any(mask is not None for mask in tree.flatten(masks))
