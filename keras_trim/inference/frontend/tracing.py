"""What a layer's or model's Python `call` does, as a graph of Keras layers and operations.

Called with symbolic tensors, Keras layers and `keras.ops` record what is done to them, wherever
they are called. So `call` of a subclassed model is traced as a functional model is built, and gives
a `keras.Function`.
"""

import contextlib
import dataclasses
import threading

import keras
from keras import layers, tree
from keras.src.backend.common import global_state  # Keras does not export these
from keras.src.layers.layer import CallContext

from keras_trim.inference.ir.dtypes import is_float


class Untraceable(Exception):  # noqa: N818
    """What `call` does cannot be recorded; the layer itself must run."""


@dataclasses.dataclass(frozen=True)
class Trace:
    """What `call` does.

    Args:
        function: `keras.Function` from the `KerasTensor`s among the arguments, in their order, to
            the outputs.
        training: Dictionary, the identity of a node of `function` -> the `training` that its layer
            was called with.
        last_training: Boolean or None. What the last layer left for the next one: Keras keeps a
            value that is handed to one layer for those behind it, until the outermost call ends.
        is_bare: Boolean. Whether each layer is an outermost call, which leaves nothing for others.
    """

    function: keras.Function
    training: dict
    last_training: bool | None
    is_bare: bool = False


def trace(layer, args, kwargs, training=False, is_outermost=False):
    """Traces `layer.call(*args, **kwargs)` as it is at inference.

    Args:
        layer: Keras layer or model, built.
        args, kwargs: Its arguments; those that are `KerasTensor`s become inputs.
        training: Boolean or None. What the layers within are called with if they are not told.
        is_outermost: Boolean. Whether it is a model that `predict` runs. On JAX, that calls `call`
            itself, so a layer within hands its `training` on to none behind it.

    Returns:
        `Trace`.

    Raises:
        Untraceable: if `call` needs values, or uses something else than Keras layers and
            operations.
    """
    if not all(part.built or _is_stateless(part) for part in layer._flatten_layers()):
        raise Untraceable(f"{layer.name} holds layers that were not built")
    if getattr(layer, "quantization_mode", None) is not None:
        raise Untraceable(f"{layer.name} is quantized")
    inputs = []

    def as_input(x):
        if not isinstance(x, keras.KerasTensor):
            return x
        inputs.append(keras.Input(batch_shape=x.shape, dtype=_dtype_within(layer, x.dtype)))
        return inputs[-1]

    args, kwargs = tree.map_structure(as_input, (args, kwargs))
    if layer._call_has_training_arg and training is not None:
        kwargs = {**kwargs, "training": training}
    is_bare = is_outermost and keras.backend.backend() == "jax"
    dropout = contextlib.nullcontext() if training else _without_dropout(layer)
    try:
        with (
            _nodes_restored(layer),
            dropout,
            _training_noted(None if is_bare else layer, training) as noted,
            keras.StatelessScope() as scope,
        ):
            outputs = layer.call(*args, **kwargs)
            if scope.state_mapping:
                raise Untraceable(f"{layer.name} changes its state")
            function = keras.Function(inputs, outputs)
            return Trace(function, noted.of_nodes(function), noted.context.training, is_bare)
    # Any code of any user runs here, with arguments that it may not be made for.
    except Exception as error:
        raise Untraceable(f"{layer.name}: {error}") from error


def _is_stateless(layer):
    return type(layer).build is layers.Layer.build


def _dtype_within(layer, dtype):
    """The dtype that a layer casts its inputs to."""
    is_cast = layer.autocast and is_float(dtype)
    return layer.compute_dtype if is_cast else dtype


class _Noted:
    """The `training` of each symbolic call of a layer, in order."""

    def __init__(self, context):
        self.context = context
        self._calls = {}  # layer -> how many nodes it had, what it was called with since

    def add(self, layer, call_spec, training):
        arguments = tree.flatten(call_spec.arguments_dict)
        if any(isinstance(x, keras.KerasTensor) for x in arguments):
            known = self._calls.setdefault(id(layer), (len(layer._inbound_nodes), []))
            known[1].append(training)

    def of_nodes(self, function):
        found = {}
        for nodes in function._nodes_by_depth.values():
            for node in nodes:
                before, values = self._calls.get(id(node.operation), (0, []))
                if values:
                    found[id(node)] = values[node.operation._inbound_nodes.index(node) - before]
        return found


@contextlib.contextmanager
def _training_noted(layer, training):
    """Calls within are as within a call of `layer`, if any; what they are called with is noted."""
    context = CallContext(entry_layer=layer)
    context.training = training if layer is not None else None
    noted, thread = _Noted(context), threading.get_ident()
    before = global_state.get_global_attribute("current_call_ctx")
    resolve = layers.Layer._resolve_and_populate_arg

    def resolve_and_note(self, name, call_spec, context, kwargs):
        resolve(self, name, call_spec, context, kwargs)
        if name == "training" and threading.get_ident() == thread:
            noted.add(self, call_spec, context.training)

    current = context if layer is not None else None
    global_state.set_global_attribute("current_call_ctx", current)
    layers.Layer._resolve_and_populate_arg = resolve_and_note
    try:
        yield noted
    finally:
        layers.Layer._resolve_and_populate_arg = resolve
        global_state.set_global_attribute("current_call_ctx", before)


@contextlib.contextmanager
def _nodes_restored(layer):
    """Forgets the calls that layers record of themselves, which their user would find later."""
    parts = list(layer._flatten_layers())
    counts = [(len(part._inbound_nodes), len(part._outbound_nodes)) for part in parts]
    try:
        yield
    finally:
        for part, (inbound, outbound) in zip(parts, counts, strict=True):
            del part._inbound_nodes[inbound:]
            del part._outbound_nodes[outbound:]


@contextlib.contextmanager
def _without_dropout(layer):
    """Sets the dropout of attention, which inference has none of, to 0.

    With it, Keras goes through scores and masks in many operations instead of one.
    """
    parts = [
        (part, name, getattr(part, name))
        for part in layer._flatten_layers()
        for kind, name in _DROPOUTS
        if isinstance(part, kind)
    ]
    try:
        for part, name, _ in parts:
            setattr(part, name, 0.0)
        yield
    finally:
        for part, name, rate in parts:
            setattr(part, name, rate)


_DROPOUTS = ((layers.MultiHeadAttention, "_dropout"), (layers.GroupQueryAttention, "dropout"))


def input_tensors(model, dtype):
    """Symbolic inputs of the shapes a subclassed model was built for.

    Its batch size is left free, unless layers within keep a state for each example.

    Raises:
        ValueError: if the model does not know them.
    """
    if getattr(model, "_inputs_struct", None) is not None:
        return tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, dtype=x.dtype), model._inputs_struct
        )
    shapes = model._build_shapes_dict
    if not model.built or not shapes:
        raise ValueError(
            "The engine must know the shapes of a model's inputs: call the model once on data, or "
            "make it with `keras.Input`, or call its `build` with their shapes. Received: "
            f"model={model.name}"
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
