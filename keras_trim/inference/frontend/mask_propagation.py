"""Propagates Keras's masks during import.

Keras attaches a mask to a tensor and passes it to layers that accept one. Here, a `Symbol` carries
it.
"""

import contextlib
import dataclasses
import functools
import inspect
import threading

import keras
import numpy as np
from keras import layers, ops, tree
from keras.src.backend import set_keras_mask  # Keras does not export it

from keras_trim.inference.frontend.converters.logic import add_logical
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


def masked(symbols, masks):
    """Symbols with the masks that a call gives explicitly."""
    masks = tree.flatten(masks) if masks is not None else [None] * len(symbols)
    return [
        x if mask is None else x.with_mask(mask) for x, mask in zip(symbols, masks, strict=True)
    ]


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


def output_masks(reader, layer, args, kwargs, outputs):
    """The outputs with the masks that the layer assigns to those without one."""
    if not isinstance(layer, layers.Layer) or not layer.supports_masking or not args:
        return outputs
    own = _own_mask(reader, layer, args[0])
    if own is not None:
        return outputs.with_mask(own)
    masks = kwargs.get("mask")
    if masks is None:
        masks = _masks(args[0])
    masks = tree.map_structure(functools.partial(_as_symbol, reader), masks)
    flat = tree.flatten(outputs)
    is_masked = _any(masks) or _creates_masks(layer)
    if not is_masked or all(y.mask is not None for y in flat):
        return outputs
    if type(layer).compute_mask is _MERGE.compute_mask:
        masks = _of_merge(reader, masks)
    elif type(layer).compute_mask in _HAND_ON:
        masks = layer.compute_mask(None, masks)
    elif type(layer).compute_mask is layers.Attention.compute_mask:
        masks = masks[0]  # that of the query
    elif type(layer).compute_mask is not layers.Layer.compute_mask:
        masks = reader.keras_call(ComputeMask(layer), (args[0], masks), {}, reader.name)
    if masks is None:
        return outputs
    flat_masks = tree.flatten(masks)
    if len(flat) > len(flat_masks):
        flat_masks = flat_masks + [None] * (len(flat) - len(flat_masks))
    pairs = zip(flat, flat_masks, strict=False)
    return tree.pack_sequence_as(
        outputs, [y.with_mask(m if y.mask is None else y.mask) for y, m in pairs]
    )


def hands_on_masks(operation, args, kwargs):
    """Whether outputs may have a mask although the operation assigns them none.

    A mask is attached to a tensor, so an operation that returns its input hands on its mask. (Which
    ones do depends on the backend.)
    """
    is_assigned = isinstance(operation, layers.Layer) and operation.supports_masking
    return not is_assigned and has_masks((args, kwargs))


def has_masks(structure):
    """Whether a tensor in a structure has a mask."""
    return _any(_masks(structure))


@contextlib.contextmanager
def deletion_by_attention():
    """Lets attention layers delete the masks of symbolic inputs, as they do with other tensors."""
    attention, thread = layers.MultiHeadAttention, threading.get_ident()
    specify = attention.compute_output_spec

    def delete_and_specify(self, *args, **kwargs):
        if type(self).call is attention.call and threading.get_ident() == thread:
            for x in [*args[:3], *(kwargs.get(name) for name in ("query", "value", "key"))]:
                if x is not None:
                    set_keras_mask(x, None)
        return specify(self, *args, **kwargs)

    attention.compute_output_spec = delete_and_specify
    try:
        yield
    finally:
        attention.compute_output_spec = specify


_MERGE = layers.Add.__base__  # Keras does not export it
# These return the mask itself, or None, and never compute with it.
_HAND_ON = (layers.RNN.compute_mask, layers.Bidirectional.compute_mask)


def _of_merge(reader, masks):
    """Where one of the merged tensors is unmasked; None if one of them has no mask."""
    if any(mask is None for mask in masks):
        return None
    either = functools.partial(add_logical, reader, "maximum")
    return dataclasses.replace(functools.reduce(either, masks), shape=masks[0].shape)


def _creates_masks(layer):
    """Whether a layer may make a mask of its own, rather than hand on those of its inputs."""
    definer = next(cls for cls in type(layer).__mro__ if "compute_mask" in vars(cls))
    is_of_user = not definer.__module__.startswith("keras.src.")
    return is_of_user or definer in (layers.Embedding, layers.Masking)


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


def _as_symbol(reader, mask):
    if mask is None or _is_symbol(mask):
        return mask
    return reader.cast(reader.add_constant(ops.convert_to_numpy(mask).astype(np.int32)), "bool")


def _is_symbol(x):
    return hasattr(x, "with_mask")


def _masks(structure):
    return tree.map_structure(lambda x: x.mask if _is_symbol(x) else None, structure)


def _any(masks):
    return any(mask is not None for mask in tree.flatten(masks))
