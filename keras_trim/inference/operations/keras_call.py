"""What the engine has no kernel for: the Keras layer itself."""

import contextlib
import dataclasses

import keras
import numpy as np
from keras import layers, tree

from keras_trim.inference.operations.base import Operation
from keras_trim.inference.plan import Tensor


@dataclasses.dataclass(frozen=True)
class Slot:
    """Stands for an input in the arguments of a call."""

    number: int


@dataclasses.dataclass
class KerasCall(Operation):
    """outputs = function(*args, **kwargs), on Keras's backend. It cannot be stored in a file.

    Behind its outputs come the masks of those that have one.

    Args:
        function: A Keras layer or operation.
        args, kwargs: What it is called with, with a `Slot` for each input.
        dtypes: Tuple of strings, of the inputs.
        masks: Dictionary, the number of an input -> the number of the input that is its mask.
    """

    function: object
    args: tuple
    kwargs: dict
    dtypes: tuple
    masks: dict = dataclasses.field(default_factory=dict)

    def _fill(self, values):
        return tree.map_structure(
            lambda leaf: values[leaf.number] if isinstance(leaf, Slot) else leaf,
            (self.args, self.kwargs),
        )

    def _call(self, tensors):
        """Flat lists: the outputs, and the mask, or None, of each."""
        get_mask, set_mask = _mask_accessors()
        for number, mask in self.masks.items():
            set_mask(tensors[number], tensors[mask])
        args, kwargs = self._fill(tensors)
        outputs = tree.flatten(self.function(*args, **kwargs))
        return outputs, [get_mask(y) for y in outputs]

    def lower(self, builder, *inputs):
        specs, masks = self.specs([x.shape for x in inputs])
        present = [mask for mask in masks if mask is not None]
        outputs = [
            Tensor(y.shape, "rows", "float32" if "float" in y.dtype else "int32")
            for y in tree.flatten(specs) + present
        ]

        def call(*arrays):
            inputs, targets = arrays[: -len(outputs)], arrays[-len(outputs) :]
            tensors = [
                keras.ops.cast(keras.ops.convert_to_tensor(x), dtype)
                for x, dtype in zip(inputs, self.dtypes, strict=True)
            ]
            with _without_gradients():
                results, computed = self._call(tensors)
            results += [new for new, mask in zip(computed, masks, strict=True) if mask is not None]
            for result, target in zip(results, targets, strict=True):
                np.copyto(target, keras.ops.convert_to_numpy(result), casting="unsafe")

        builder.choose("Keras")
        builder.host(call, list(inputs), outputs)
        return outputs

    def specs(self, shapes):
        """`KerasTensor`s of the outputs for inputs of the given shapes; of their masks, or None."""
        inputs = [
            keras.KerasTensor(shape, dtype)
            for shape, dtype in zip(shapes, self.dtypes, strict=True)
        ]
        args, kwargs = self._fill(inputs)
        specs = self.function.compute_output_spec(*args, **kwargs)
        masks = [None] * len(tree.flatten(specs))
        if self._may_mask():
            masks = self._mask_specs(inputs, len(masks))
        return specs, masks

    def _may_mask(self):
        """Whether outputs may have masks; Keras tells only when it computes."""
        function = self.function
        if self.masks or not isinstance(function, layers.Layer):
            return bool(self.masks)
        return (
            type(function).compute_mask is not layers.Layer.compute_mask
            or isinstance(function, layers.Wrapper)
            or not type(function).__module__.startswith("keras.")
        )

    def _mask_specs(self, inputs, num_outputs):
        from keras.src.backend import compute_output_spec

        have = []

        def masks(*tensors):
            _, masks = self._call(list(tensors))
            have[:] = [mask is not None for mask in masks]
            return [mask for mask in masks if mask is not None] + [tensors[0]]

        try:
            with keras.StatelessScope():
                *specs, _ = compute_output_spec(masks, *inputs)
        except Exception:
            # Without a mask to begin with, a layer that cannot be traced is taken to make none.
            if self.masks:
                raise
            return [None] * num_outputs
        specs = iter(specs)
        return [next(specs) if has else None for has in have]


def _mask_accessors():
    # Keras exports neither, and has them in this place since version 3.6.
    from keras.src.backend import get_keras_mask, set_keras_mask

    return get_keras_mask, set_keras_mask


def _without_gradients():
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
