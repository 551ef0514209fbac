"""What the engine has no kernel for: the Keras layer itself."""

import contextlib
import dataclasses

import keras
import numpy as np
from keras import tree
from keras.src.backend import compute_output_spec, set_keras_mask  # Keras does not export them

from keras_trim.inference.ir.dtypes import WIDE, is_float, is_number
from keras_trim.inference.ir.operations.host import HostOperation


@dataclasses.dataclass(frozen=True)
class Slot:
    """Stands for an input in the arguments of a call."""

    number: int


class FunctionCall(keras.Operation):
    """A Python function of tensors, such as an activation, as an operation of Keras."""

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
        args, kwargs: What it is called with, with a `Slot` for each input.
        dtypes: Tuple of strings, the inputs' dtypes in Keras.
        masks: Dictionary, the number of an input -> the number of its mask.
        training: Boolean or None. What the layer is called with, and those within it that are not
            told otherwise.
    """

    label = "Keras"

    function: object
    args: tuple
    kwargs: dict
    dtypes: tuple
    masks: dict
    training: bool | None = None

    def snapshot(self):
        """A function that gives the layer, such as a random one, the state back that it has now."""
        variables = [v for v in getattr(self.function, "variables", []) if not v.trainable]
        if isinstance(self.function, keras.Layer):  # whose variables lack the states of these
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
        return [(y.shape, y.dtype) for y in _present(self.specs(shapes))]

    def run(self, inputs, outputs):
        tensors = [
            keras.ops.convert_to_tensor(x, dtype)
            for x, dtype in zip(inputs, self.dtypes, strict=True)
        ]
        for number, mask in self.masks.items():
            set_keras_mask(tensors[number], tensors[mask])
        args, kwargs = self._fill(tensors)
        if self.training is not None:
            kwargs = {**kwargs, "training": self.training}
        with _without_gradients():
            results = self.function(*args, **kwargs)
        for result, target in zip(_present(results), outputs, strict=True):
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

    def specs(self, shapes):
        """`KerasTensor`s of the outputs for inputs of the given shapes."""
        inputs = [
            keras.KerasTensor(shape, dtype)
            for shape, dtype in zip(shapes, self.dtypes, strict=True)
        ]
        args, kwargs = self._fill(inputs)
        if self.training is not None and self.function._call_has_training_arg:
            kwargs = {**kwargs, "training": self.training}
        return output_specs(self.function, args, kwargs)


def output_specs(function, args, kwargs):
    """`KerasTensor`s of what a layer or operation gives for `KerasTensor`s among its arguments.

    Layers declare their own dtype, which is not what they give for integers; operations declare
    complex numbers where they give real ones; a layer that is told its output's shape once leaves
    the batch's size free. So these are traced.
    """
    specs = function.compute_output_spec(*args, **kwargs)
    inputs = [x for x in tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
    is_real = all(is_number(y.dtype) for y in _present(specs))
    is_known = not any(None in y.shape for y in _present(specs))
    if not inputs or (is_real and is_known and any(is_float(x.dtype) for x in inputs)):
        return specs
    try:
        traced = compute_output_spec(function, *args, **kwargs)
        return tree.map_structure(
            lambda spec, y: None if spec is None else keras.KerasTensor(_sizes(spec, y), y.dtype),
            specs,
            traced,
        )
    except Exception:  # any code of any user
        return specs


def _sizes(spec, traced):
    """The declared shape, with the traced size where that is free."""
    return [b if a is None else a for a, b in zip(spec.shape, traced.shape, strict=True)]


def _present(structure):
    return [leaf for leaf in tree.flatten(structure) if leaf is not None]


def _without_gradients():
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
