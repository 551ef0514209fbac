"""Masks of time steps: Keras hands them from layer to layer as attributes of tensors.

While a model is read, the mask of a value is the `mask` of its `Symbol`. What Keras's
`Layer.__call__` does with masks is done here for layers that become operations; a layer that runs
in Keras is handed tensors with their masks.
"""

import dataclasses
import inspect

from keras import layers, tree

from keras_trim.inference.converters.registry import only

# Their `compute_mask` only passes masks on.
_PASSING = (layers.RNN, layers.Bidirectional, layers.GlobalAveragePooling1D)


def _mask(x):
    return getattr(x, "mask", None)


def argument(layer, converter, args, kwargs):
    """The mask argument that Keras would add to a call: `{"mask": Symbol}` or nothing.

    Raises:
        Unsupported: if the converter does not take the masks that the layer would.
    """
    if not isinstance(layer, layers.Layer) or not has_masks(args, kwargs):
        return {}
    names = list(inspect.signature(layer.call).parameters)
    tensors = {
        **dict(zip(names, args, strict=False)),
        **kwargs,
    }
    tensors = {
        name: value
        for name, value in tensors.items()
        if value is not None and all(hasattr(leaf, "mask") for leaf in tree.flatten(value))
    }
    if len(tensors) > 1:
        only(not any(f"{name}_mask" in names for name in tensors), "several masks")
        return {}
    if "mask" not in names or kwargs.get("mask") is not None:
        return {}
    only(len(tensors) == 1, "masks of several tensors")
    (value,) = tensors.values()
    only(not tree.is_nested(value), "masks of several tensors")
    only("mask" in inspect.signature(converter).parameters, "a mask")
    return {"mask": _mask(value)}


def has_masks(args, kwargs):
    return any(_mask(leaf) is not None for leaf in tree.flatten((args, kwargs)))


def carried_on(layer, outputs, args, kwargs):
    """The outputs of a converted layer with the masks that Keras would give them.

    Raises:
        Unsupported: if only Keras can compute them.
    """
    flat = tree.flatten(outputs)
    if (
        not isinstance(layer, layers.Layer)
        or not layer.supports_masking
        or all(y.mask is not None for y in flat)
    ):
        return outputs
    first = args[0] if args else next(iter(kwargs.values()), None)
    previous = kwargs.get("mask")
    if previous is None:
        previous = tree.map_structure(_mask, first)
    if all(mask is None for mask in tree.flatten(previous)):
        return outputs
    is_plain = type(layer).compute_mask is layers.Layer.compute_mask
    only(is_plain or isinstance(layer, _PASSING), "a mask that it computes")
    masks = tree.flatten(layer.compute_mask(first, previous))
    masks += [None] * (len(flat) - len(masks))
    flat = [
        y if y.mask is not None else dataclasses.replace(y, mask=mask)
        for y, mask in zip(flat, masks, strict=False)
    ]
    return tree.pack_sequence_as(outputs, flat)
