"""Propagates Keras's masks during import.

Keras attaches a mask to a tensor and passes it to layers that accept one. Here, a `Symbol` carries
it.
"""

import dataclasses
import inspect

import keras
from keras import layers, tree

from keras_trim.inference.ir import operations


def with_masks(layer, args, kwargs):
    """`kwargs` plus the masks of the arguments, if `layer.call` has parameters for them."""
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
    """Wraps the `compute_mask` of a layer as a Keras operation."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs, masks):
        return self.layer.compute_mask(inputs, masks)

    def compute_output_spec(self, inputs, masks):
        # Most layers pass masks on or drop them, which works with symbolic tensors. On some
        # backends, Keras's own inference fails if there is no mask.
        try:
            return self.layer.compute_mask(inputs, masks)
        except Exception:
            return super().compute_output_spec(inputs, masks)


def output_masks(reader, layer, args, outputs):
    """The outputs with the masks that the layer assigns to them."""
    if not isinstance(layer, layers.Layer) or not layer.supports_masking or not args:
        return outputs
    masks = _masks(args[0])
    own = _own_mask(reader, layer, args[0])
    if own is not None:
        return outputs.with_mask(own)
    if not _any(masks):
        return outputs
    if type(layer).compute_mask is not layers.Layer.compute_mask:
        masks = reader.keras_call(ComputeMask(layer), (args[0], masks), {}, reader.name)
    if masks is None:
        return outputs
    flat, flat_masks = tree.flatten(outputs), tree.flatten(masks)
    if len(flat) > len(flat_masks):
        flat_masks = flat_masks + [None] * (len(flat) - len(flat_masks))
    return tree.pack_sequence_as(
        outputs, [y.with_mask(m) for y, m in zip(flat, flat_masks, strict=False)]
    )


def _own_mask(reader, layer, x):
    """The mask of a layer that creates one (`Embedding`, `Masking`), or None."""
    if type(layer) is layers.Embedding and layer.mask_zero:
        return reader.add(operations.Compare("not_equal", 0.0), [x], reader.name)
    if type(layer) is layers.Masking:
        other = reader.add(
            operations.Compare("not_equal", float(layer.mask_value)), [x], reader.name
        )
        last = len(x.shape) - 1
        seen = reader.add(operations.Reduce("max", (last,), False), [other], reader.name)
        return dataclasses.replace(reader.cast(seen, "bool"), shape=x.shape[:-1])
    return None


def _is_symbol(x):
    return hasattr(x, "with_mask")


def _masks(structure):
    return tree.map_structure(lambda x: x.mask if _is_symbol(x) else None, structure)


def _any(masks):
    return any(mask is not None for mask in tree.flatten(masks))
