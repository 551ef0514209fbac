"""Runs Keras itself for layers without a kernel."""

import contextlib
import dataclasses

import keras
import numpy as np
from keras import tree
from keras.src.backend import (  # Keras does not export these
    compute_output_spec,
    get_keras_mask,
    set_keras_mask,
)

from keras_trim.inference.frontend.structures import map_in_order
from keras_trim.inference.ir.dtypes import WIDE, is_float, is_number
from keras_trim.inference.ir.operations.host import HostOperation

_NEW = object()  # stands for a mask that a layer computes


@dataclasses.dataclass(frozen=True)
class Slot:
    """Stands for an input in the arguments of a call."""

    number: int


class FunctionCall(keras.Operation):
    """Wraps a Python function of tensors, such as an activation, as a Keras operation."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, *args, **kwargs):
        return self.function(*args, **kwargs)


@dataclasses.dataclass
class KerasCall(HostOperation):
    """outputs = function(*args, **kwargs), on Keras's backend. It cannot be stored in a file.

    Args:
        function: A Keras layer or operation.
        args, kwargs: Its arguments, with a `Slot` for each input.
        dtypes: Tuple of strings, the Keras dtypes of the inputs.
        masks: Dictionary, index of an input -> index of the input that is its mask.
        training: Boolean or None. The `training` argument of the layer.
        mask_outputs: Tuple of integers: the outputs whose masks are further outputs.
    """

    label = "Keras"

    function: object
    args: tuple
    kwargs: dict
    dtypes: tuple
    masks: dict
    training: bool | None = None
    mask_outputs: tuple = ()

    def snapshot(self):
        """Returns a function that restores the layer's present state, such as a random seed."""
        variables = [v for v in getattr(self.function, "variables", []) if not v.trainable]
        if isinstance(self.function, keras.Layer):  # `variables` leaves out the states of RNNs
            within = self.function._flatten_layers()
            states = [layer.states for layer in within if isinstance(layer, keras.layers.RNN)]
            variables += [v for v in tree.flatten(states) if isinstance(v, keras.Variable)]
        values = [np.array(keras.ops.convert_to_numpy(v)) for v in variables]

        def restore():
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

        return restore

    def _fill(self, values):
        return tree.map_structure(
            lambda leaf: values[leaf.number] if isinstance(leaf, Slot) else leaf,
            (self.args, self.kwargs),
        )

    def output_specs(self, shapes):
        specs = _present(self.specs(shapes))
        if self.mask_outputs:
            masks, _ = self.masks_after(shapes)
            specs += [masks[number] for number in self.mask_outputs]
        return [(y.shape, y.dtype) for y in specs]

    def run(self, inputs, outputs):
        # Copies, because a layer may keep a tensor as its state, a backend may share the memory of
        # an array, and later layers and calls reuse that of `inputs`.
        tensors = [
            keras.ops.convert_to_tensor(x.copy(), dtype)
            for x, dtype in zip(inputs, self.dtypes, strict=True)
        ]
        with _without_gradients():
            results = _present(self._call(tensors))
        results += [get_keras_mask(results[number]) for number in self.mask_outputs]
        for result, target in zip(results, outputs, strict=True):
            array = np.asarray(keras.ops.convert_to_numpy(result))
            if array.shape != target.shape:
                raise ValueError(
                    "A layer that runs in Keras gives an output of another shape than its "
                    "`compute_output_shape` says. "
                    f"Received: layer={self.function.name}, with an output of shape "
                    f"{array.shape}, not {target.shape}"
                )
            np.copyto(target, array, casting="unsafe")
            if array.dtype.name in WIDE and not np.array_equal(target, array):
                raise ValueError(
                    "The engine computes with integers of 32 bits, and a layer that runs in "
                    "Keras gives some that need more. "
                    f"Received: layer={self.function.name}, with outputs of {array.dtype}"
                )

    def _call(self, tensors):
        for number, mask in self.masks.items():
            set_keras_mask(tensors[number], tensors[mask])
        args, kwargs = self._fill(tensors)
        if self.training is not None:
            kwargs = {**kwargs, "training": self.training}
        return self.function(*args, **kwargs)

    def masks_after(self, shapes):
        """The masks that Keras attaches to the outputs, and those that it deletes.

        A mask is attached to a tensor, and stays wherever that same tensor goes: a layer that
        returns what a layer inside returned hands on its mask, and so does one that returns its
        input. Attention layers delete the masks of their inputs. Only a call of the layer tells,
        so this calls it on the backend's abstract tensors.

        Returns:
            Tuple: a list, for each output: the index of the input that is its mask, the
            `KerasTensor` of a mask that the layer computes, or None; and a list of the indices of
            inputs without a mask after the call.
        """
        numbers, deleted = [], []

        def masks_of(*tensors):
            masks = [get_keras_mask(y) for y in _present(self._call(tensors))]
            deleted[:] = [i for i in self.masks if get_keras_mask(tensors[i]) is None]
            places = {id(x): i for i, x in enumerate(tensors)}
            numbers[:] = [None if m is None else places.get(id(m), _NEW) for m in masks]
            computed = [m for m, number in zip(masks, numbers, strict=True) if number is _NEW]
            return [tensors[0], *computed]  # at least one output, as some backends need it

        try:
            _, *computed = compute_output_spec(masks_of, *self._inputs(shapes))
        except Exception:  # user code may raise anything on abstract tensors
            return [], []
        computed = iter(computed)
        return [next(computed) if number is _NEW else number for number in numbers], deleted

    def _inputs(self, shapes):
        return [
            keras.KerasTensor(shape, dtype)
            for shape, dtype in zip(shapes, self.dtypes, strict=True)
        ]

    def specs(self, shapes):
        """`KerasTensor`s of the outputs for inputs of the given shapes."""
        args, kwargs = self._fill(self._inputs(shapes))
        if self.training is not None and self.function._call_has_training_arg:
            kwargs = {**kwargs, "training": self.training}
        return output_specs(self.function, args, kwargs)


def output_specs(function, args, kwargs):
    """`KerasTensor`s of the outputs of a layer or operation called on `KerasTensor`s.

    Declared specs can be wrong, so these cases are traced: a layer declares its own dtype even if
    it returns integers, an operation declares complex numbers but returns real ones, and a layer
    with an explicit output shape leaves the batch size free.
    """
    specs = map_in_order(_as_spec, function.compute_output_spec(*args, **kwargs))
    inputs = [x for x in tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
    is_dtype_known = all(is_number(y.dtype) for y in _present(specs)) and any(
        is_float(x.dtype) for x in inputs
    )
    is_shape_known = any(None in x.shape for x in inputs) or not any(
        None in y.shape for y in _present(specs)
    )
    if not inputs or (is_dtype_known and is_shape_known):
        return specs

    def specify(spec, traced):
        if spec is None:
            return None
        return keras.KerasTensor(_sizes(spec, traced), (spec if is_dtype_known else traced).dtype)

    try:
        traced = compute_output_spec(function, *args, **kwargs)
        return tree.map_structure(specify, specs, traced)
    except Exception:  # user code may raise anything
        return specs


def _as_spec(output):
    """A `KerasTensor` for a constant array among the outputs, whose dtype is NumPy's."""
    is_array = isinstance(output, np.ndarray)
    return keras.KerasTensor(output.shape, output.dtype) if is_array else output


def _sizes(spec, traced):
    """The declared shape, with free sizes replaced by traced ones."""
    return [b if a is None else a for a, b in zip(spec.shape, traced.shape, strict=True)]


def _present(structure):
    return [leaf for leaf in tree.flatten(structure) if leaf is not None]


def _without_gradients():
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
