"""What Keras does differently while a layer is traced, and how that is undone."""

import contextlib
import os
import threading

import keras
from keras import layers, tree
from keras.src.backend.common import global_state  # Keras does not export these
from keras.src.layers.layer import CallContext

_importing = threading.RLock()


def _renew_lock():
    """Makes a new lock in a forked process, where nobody would release the old one."""
    global _importing
    _importing = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_lock)


@contextlib.contextmanager
def one_thread():
    """Lets one thread at a time run its body.

    What follows changes classes of Keras and layers of the model, and restores them. Two threads
    would restore each other's changes.
    """
    with _importing:
        yield


class _Noted:
    """The `training` of each symbolic call of a layer, in order."""

    def __init__(self, context):
        self.context = context
        self._calls = {}  # layer id -> its number of nodes before, `training` of each call since

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
def training_noted(layer, training):
    """Runs its body as if inside a call of `layer`, if any; records `training` of each call."""
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
def left_operands_defer():
    """Lets `y * x` take a symbolic tensor `x`, whatever `y` is, as `x * y` does.

    Keras's variables and the arrays of NumPy and JAX would ask it for its values. For the time of
    the trace, they return `NotImplemented`, so Python asks `x` for the product.
    """

    def deferring(name):
        compute = getattr(keras.Variable, name)

        def operator(self, other):
            return NotImplemented if isinstance(other, keras.KerasTensor) else compute(self, other)

        return operator

    with contextlib.ExitStack() as stack:
        for name in _BINARY:
            stack.enter_context(_attribute(keras.Variable, name, deferring(name)))
        stack.enter_context(_attribute(keras.KerasTensor, "__array_ufunc__", None))
        stack.enter_context(_attribute(keras.KerasTensor, "__jax_array__", _ABSENT))
        yield


_ABSENT = object()
_BINARY = [
    f"__{name}__"
    for name in (
        "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor",
        "lt", "le", "gt", "ge", "eq", "ne",
    )
]  # fmt: skip


@contextlib.contextmanager
def _attribute(owner, name, value):
    """Sets an attribute of a class, or removes it, and restores what the class itself had."""
    before = vars(owner).get(name, _ABSENT)

    def put(value):
        if value is not _ABSENT:
            setattr(owner, name, value)
        elif name in vars(owner):
            delattr(owner, name)

    put(value)
    try:
        yield
    finally:
        put(before)


@contextlib.contextmanager
def nodes_restored(layer):
    """Removes the nodes that the trace adds to layers, so users do not see them."""
    parts = list(layer._flatten_layers())
    counts = [(len(part._inbound_nodes), len(part._outbound_nodes)) for part in parts]
    try:
        yield
    finally:
        for part, (inbound, outbound) in zip(parts, counts, strict=True):
            del part._inbound_nodes[inbound:]
            del part._outbound_nodes[outbound:]


@contextlib.contextmanager
def without_dropout(layer):
    """Sets the dropout of attention layers to 0, because inference does not use it.

    With dropout, Keras computes attention in many operations instead of one.
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
