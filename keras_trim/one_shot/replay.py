"""Runs a model on the same batches repeatedly, and returns the inputs of its layers.

Weights take other values in a `keras.StatelessScope`, so the model never changes. To watch a layer,
a run sets an instance attribute `call` that hides the class's. So models may be functional or
subclassed, and layers may be nested to any depth. A run ends at the last call of interest.

A functional model resumes where the last run ended, if the live values there fit in memory. Other
models run from the start for each layer, so their time grows with the square of the depth.
"""

import contextlib
import dataclasses
import functools
import math

import keras

from keras_trim.backend import BACKEND
from keras_trim.one_shot.masks import Masks, kept
from keras_trim.one_shot.steps import Steps, functional_of

# Limit on the bytes of activations kept from one layer to the next.
_KEPT_BYTES = 2**30


class _Reached(BaseException):
    """Ends a run. Not an `Exception`, because Keras rewrites those."""


@dataclasses.dataclass
class Call:
    """A call of a layer.

    Args:
        layer: The layer.
        x: Tensor. The first argument.
        mask: Tensor of the leading axes of `x`, False where a step is padding; or `None`.
        output: Its output; `None` for the call that ended the run.
    """

    layer: object
    x: object
    mask: object = None
    output: object = None


class Replay:
    """A model and the batches that it runs on.

    Args:
        model: Keras model or layer.
        batches: List of inputs of the model, structures of arrays.
        has_dense: Boolean. Whether to run the dense model as well.
    """

    def __init__(self, model, batches, has_dense=False):
        self.model, self.batches, self.has_dense = model, batches, has_dense
        functional = functional_of(model)
        self._steps = None if functional is None else Steps(functional)
        self._at, self._kept = 0, None
        self._composites = [x for x in model._flatten_layers() if x._layers]

    def has_one_reader(self, layer):
        """Whether only one operation reads a layer's output; True if unknown."""
        return self._steps is None or self._steps.num_readers(layer) in (None, 1)

    def record(self, layers, batch, values=(), calls=None):
        """Runs the model on a batch and records calls of layers in it.

        Args:
            layers: List of layers to watch.
            batch: One of the batches.
            values: List of pairs (variable, value): values of weights in this run.
            calls: Integer. The run ends once it has recorded this many calls, before the last one
                executes. By default it does not end early.

        Returns:
            List of `Call`, in order.
        """
        return self._watch(layers, values, calls, lambda: self.model(batch, training=False))

    def _watch(self, layers, values, calls, run):
        seen, masks = [], Masks()

        def surround(layer):
            call = layer.call

            @functools.wraps(call)
            def surrounding(*args, **kwargs):
                with masks.inside(call, args, kwargs):
                    return call(*args, **kwargs)

            return surrounding

        def watch(layer):
            call = layer.call

            @functools.wraps(call)
            def watched(*args, **kwargs):
                x = args[0] if args else next(iter(kwargs.values()))
                seen.append(Call(layer, x, masks.of(call, args, kwargs, x)))
                own = seen[-1]
                if len(seen) == calls:
                    raise _Reached
                own.output = call(*args, **kwargs)
                return own.output

            return watched

        with contextlib.ExitStack() as stack:
            for layer in self._composites:
                stack.enter_context(_hidden_call(layer, surround(layer)))
            for layer in layers:
                stack.enter_context(_hidden_call(layer, watch(layer)))
            stack.enter_context(values_of(values))
            stack.enter_context(contextlib.suppress(_Reached))
            run()
        return seen

    def inputs(self, layer, calls, values=()):
        """For each batch, the inputs of a layer in the pruned and in the dense model.

        If values change between requests, request layers in the order of their first calls, and
        do not change values of layers before the last one requested.

        Args:
            layer: The layer.
            calls: Integer. How often the model calls it.
            values: Pairs (variable, value): weights of the pruned model that differ from the dense.

        Yields:
            Tuple of two lists of `Call`. The second one is `None` without `has_dense`.
        """
        values = list(values)
        start = None if self._steps is None else self._steps.first_step(layer)
        if start is None:
            for batch in self.batches:
                yield tuple(
                    None if x is None else self.record([layer], batch, x, calls)
                    for x in (values, () if self.has_dense else None)
                )
            return
        yield from self._inputs_by_steps(layer, calls, values, start)

    def _inputs_by_steps(self, layer, calls, values, start):
        if start < self._at:  # requested out of order
            self._at, self._kept = 0, None
        keeps = None
        kept = self._kept or [None] * len(self.batches)
        begin = self._at if self._kept else 0
        for i, batch in enumerate(self.batches):
            states = kept[i] or self._first_states(batch)
            sparse, dense = (
                None if state is None else self._advance(state, begin, start, own)
                for state, own in zip(states, (values, ()), strict=True)
            )
            if keeps is None:
                keeps = _num_bytes(sparse, dense) * len(self.batches) <= _KEPT_BYTES
                kept = list(kept) if keeps else kept
            if keeps:
                kept[i] = sparse, dense
            yield tuple(
                None if x is None else self._watch_steps(layer, calls, own, x, start)
                for x, own in ((sparse, values), (dense, ()))
            )
        if keeps:
            self._kept, self._at = kept, start

    def _first_states(self, batch):
        """The values before the first step: the inputs, converted as a call of the model does."""
        functional = self._steps.functional
        (call,) = self.record([functional], batch, calls=1)
        inputs = functional._standardize_inputs(call.x)
        values = dict(zip(self._steps.inputs, inputs, strict=True))
        return values, values if self.has_dense else None

    def _advance(self, state, begin, start, values):
        state = dict(state)
        with values_of(values):
            for i in range(begin, start):
                self._steps.steps[i].run(state)
                state = self._steps.drop_dead(state, i + 1)
        return state

    def _watch_steps(self, layer, calls, values, state, start):
        state = dict(state)

        def run():
            for step in self._steps.steps[start:]:
                step.run(state)

        with kept([x for x in state.values() if x is not None]):
            return self._watch([layer], values, calls, run)


def _num_bytes(*states):
    """Integer: bytes of the distinct tensors in some dicts of them."""
    tensors = {id(x): x for state in states if state for x in state.values() if x is not None}
    return sum(math.prod(map(int, x.shape)) * _item_size(x) for x in tensors.values())


def _item_size(x):
    return {"64": 8, "32": 4, "16": 2}.get(keras.backend.standardize_dtype(x.dtype)[-2:], 1)


@contextlib.contextmanager
def values_of(values):
    """A context in which some variables have other values, and no gradients are recorded."""
    values = list(values)
    with _no_gradients(), _parameters(values), keras.StatelessScope(state_mapping=values):
        yield


@contextlib.contextmanager
def _parameters(values):
    """A context in which PyTorch's own modules, which read their parameters, have the values."""
    changed = []
    try:
        for variable, value in values if BACKEND == "torch" else ():
            changed.append((variable._value, variable._value.data))
            variable._value.data = value
        yield
    finally:
        for parameter, data in changed:
            parameter.data = data


@contextlib.contextmanager
def _hidden_call(layer, function):
    previous = layer.__dict__.get("call")
    layer.__dict__["call"] = function
    try:
        yield
    finally:
        if previous is None:
            del layer.__dict__["call"]
        else:
            layer.__dict__["call"] = previous


def _no_gradients():
    """A context in which PyTorch records no gradients."""
    if BACKEND != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def is_readable(x):
    """Whether a tensor has concrete values, and is not a tracer in a compiled function."""
    if BACKEND == "jax":
        import jax

        return not isinstance(x, jax.core.Tracer)
    if BACKEND == "tensorflow":
        return hasattr(x, "numpy")
    import torch

    return not torch._C._functorch.is_functorch_wrapped_tensor(x)
