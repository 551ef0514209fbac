"""Traces the Python `call` of a layer or model into a graph of Keras layers and operations.

Keras layers and `keras.ops` record their calls on symbolic tensors. So calling a subclassed model
on symbolic tensors gives a `keras.Function`, just as building a functional model does.
"""

import contextlib
import dataclasses

import keras
import numpy as np
from keras import layers, tree

from keras_trim.inference.frontend.mask_propagation import deletion_by_attention
from keras_trim.inference.frontend.structures import map_in_order
from keras_trim.inference.frontend.trace_contexts import (
    left_operands_defer,
    nodes_restored,
    training_noted,
    without_dropout,
)
from keras_trim.inference.ir.dtypes import is_float


class Untraceable(Exception):  # noqa: N818
    """`call` cannot be traced; the layer itself must run."""


@dataclasses.dataclass(frozen=True)
class Trace:
    """A trace of `call`.

    Args:
        function: `keras.Function` from the `KerasTensor`s among the arguments, in order, to the
            outputs.
        training: Dictionary, id of a node of `function` -> the `training` of its layer's call.
        last_training: Boolean or None. The `training` that the next layer would get. Keras passes
            the value of one layer on to later ones until the outermost call ends.
        is_bare: Boolean. Whether each layer is an outermost call, so its value is not passed on.
    """

    function: keras.Function
    training: dict
    last_training: bool | None
    is_bare: bool = False


def trace(layer, args, kwargs, training=False, is_outermost=False):
    """Traces `layer.call(*args, **kwargs)` for inference.

    Args:
        layer: Keras layer or model, built.
        args, kwargs: Its arguments; `KerasTensor`s become inputs.
        training: Boolean or None. The default `training` of the layers inside.
        is_outermost: Boolean. Whether it is a model that `predict` runs. On JAX, `predict` bypasses
            `__call__`, so a layer inside does not pass its `training` on to later ones.

    Returns:
        `Trace`.

    Raises:
        Untraceable: if `call` needs values, does different things at different free sizes, or uses
            anything but Keras layers and operations.
    """
    if not all(part.built or _is_stateless(part) for part in layer._flatten_layers()):
        raise Untraceable(f"{layer.name} holds layers that were not built")
    if getattr(layer, "quantization_mode", None) is not None:
        raise Untraceable(f"{layer.name} is quantized")
    traced = _traced(layer, args, kwargs, training, is_outermost)
    # Keras's own layers do right by sizes that they learn when they are called.
    if not type(layer).__module__.startswith("keras.") or isinstance(layer, layers.Lambda):
        _require_one_program(traced, layer, args, kwargs, training, is_outermost)
    return traced


def _require_one_program(traced, layer, *settings):
    """Raises Untraceable if Python in `call` does different things at different free sizes."""
    if all(None not in x.shape for x in traced.function.inputs):
        return
    try:
        others = [_traced(layer, *settings, sizes=sizes).function for sizes in _SIZES]
    except Untraceable:  # e.g. an image that is too small
        return
    programs = [_program(function) for function in (traced.function, *others)]
    try:
        is_one = all(_are_same(*parts) for parts in zip(*programs, strict=True))
    except Exception:  # other lengths, or objects of the user's that compare in their own way
        is_one = False
    if not is_one:
        raise Untraceable(f"{layer.name} depends on sizes that are free")


_SIZES = ((1, 3), (2, 5))  # of the batch, and of other free axes


def _program(function):
    """What a function computes, as a list: operations, their attributes and arguments."""
    numbers = {id(x): i for i, x in enumerate(function.inputs)}
    program = []
    for node in _nodes(function):
        operation = node.operation
        given = [node.arguments.args, node.arguments.kwargs]
        if isinstance(operation, layers.Layer):
            program.append(operation)
        else:
            program.append(type(operation))
            attributes = {k: v for k, v in vars(operation).items() if k[0] != "_" and k != "name"}
            # The importer replaces free sizes in shapes.
            given.append({k: v for k, v in attributes.items() if "shape" not in k})
            shapes = {k: v for k, v in attributes.items() if "shape" in k}
            program += [_Size(x) for x in tree.flatten(shapes)]
        program += [numbers.get(id(x), x) for x in tree.flatten(given)]
        numbers |= {id(y): len(numbers) + i for i, y in enumerate(node.outputs)}
        program += [len(y.shape) for y in node.outputs]
    return program + [numbers.get(id(y)) for y in function.outputs]


@dataclasses.dataclass(frozen=True)
class _Size:
    """A part of a shape; None if it is free."""

    size: object


def _are_same(x, *others):
    """Whether a part of a program is the same at all sizes."""
    if isinstance(x, _Size) and x.size is None:
        return all(isinstance(y, _Size) for y in others)
    if isinstance(x, layers.Layer):
        return all(x is y or _config(x) == _config(y) for y in others)
    if isinstance(x, keras.Variable) or not hasattr(x, "shape"):
        return all(x is y or (type(x) is type(y) and x == y) for y in others)
    return all(
        x is y or np.array_equal(*map(keras.ops.convert_to_numpy, (x, y)), equal_nan=True)
        for y in others
    )


def _config(layer):
    """What two layers must have in common to compute the same, if `call` makes them anew."""
    if not isinstance(layer, layers.Layer) or layer.variables:
        return id(layer)
    try:
        return type(layer), {**layer.get_config(), "name": None}
    except NotImplementedError:  # a layer without `get_config`
        return id(layer)


def _traced(layer, args, kwargs, training, is_outermost, sizes=(None, None)):
    """As `trace`, with these sizes of the batch and of other axes that are free."""
    inputs = []

    def sized(i, n):
        return sizes[i > 0] if n is None else n

    def as_input(x):
        if not isinstance(x, keras.KerasTensor):
            return x
        shape = [sized(i, n) for i, n in enumerate(x.shape)]
        inputs.append(keras.Input(batch_shape=shape, dtype=_dtype_within(layer, x.dtype)))
        return inputs[-1]

    args, kwargs = map_in_order(as_input, (args, kwargs))
    if layer._call_has_training_arg and training is not None:
        kwargs = {**kwargs, "training": training}
    is_bare = is_outermost and keras.backend.backend() == "jax"
    dropout = contextlib.nullcontext() if training else without_dropout(layer)
    try:
        with (
            nodes_restored(layer),
            dropout,
            deletion_by_attention(),
            left_operands_defer(),
            training_noted(None if is_bare else layer, training) as noted,
            keras.StatelessScope() as scope,
        ):
            outputs = layer.call(*args, **kwargs)
            if scope.state_mapping:
                raise Untraceable(f"{layer.name} changes its state")
            function = keras.Function(inputs, outputs)
            _make_callable(function)
            return Trace(function, noted.of_nodes(function), noted.context.training, is_bare)
    # User code runs here, and may raise anything on symbolic arguments.
    except Exception as error:
        raise Untraceable(f"{layer.name}: {error}") from error


def _make_callable(function):
    """Makes sure that each operation of a trace can be called on other tensors.

    Raises:
        Untraceable: if one takes a Python function, which may use tensors of the trace.
    """
    for node in _nodes(function):
        operation = node.operation
        if isinstance(operation, layers.Layer):
            continue
        given = vars(operation), node.arguments.args, node.arguments.kwargs
        if any(callable(x) and not isinstance(x, type) for x in tree.flatten(given)):
            raise Untraceable(f"{operation.name} calls a function")
        if isinstance(getattr(operation, "axis", None), list):  # JAX needs tuples (`ops.norm`)
            operation.axis = tuple(operation.axis)


def _nodes(function):
    """The nodes of a function in the order of its calls, without the inputs."""
    depths = sorted(function._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in function._nodes_by_depth[depth]]
    return [node for node in nodes if not node.is_input]


def _is_stateless(layer):
    return type(layer).build is layers.Layer.build


def _dtype_within(layer, dtype):
    """The dtype that a layer casts its inputs to."""
    is_cast = layer.autocast and is_float(dtype)
    return layer.compute_dtype if is_cast else dtype


def input_tensors(model, dtype):
    """Symbolic inputs with the shapes that a subclassed model was built for.

    The batch size is free unless a layer inside is stateful.

    Raises:
        ValueError: if the model does not know its input shapes.
    """
    if getattr(model, "_inputs_struct", None) is not None:
        return tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, dtype=x.dtype), model._inputs_struct
        )
    shapes = model._build_shapes_dict
    if not shapes:
        cure = "call the model once on data, make it with `keras.Input`, or call its `build`"
        if model.built:  # by a call that Keras could not trace, so it did not note the shapes
            cure = "give the model's class a `build(self, input_shape)` and call the model again"
        raise ValueError(
            f"The engine must know the shapes of a model's inputs: {cure}. "
            f"Received: model={model.name}"
        )
    keeps_states = any(getattr(part, "stateful", False) for part in model._flatten_layers())
    return _map_shapes(
        next(iter(shapes.values())),
        lambda shape: keras.KerasTensor((shape[0] if keeps_states else None, *shape[1:]), dtype),
    )


def _map_shapes(shapes, function):
    if isinstance(shapes, dict):
        return {name: _map_shapes(shape, function) for name, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return function(tuple(shapes))
    return type(shapes)(_map_shapes(shape, function) for shape in shapes)
