"""Splits a functional model into steps, so that a run can resume where the last one ended."""

import dataclasses

from keras import layers, models, tree
from keras.src.models.functional import Functional, operation_fn


def functional_of(model):
    """The `Functional` model that a call of the model runs, or `None`."""
    if isinstance(model, models.Sequential):
        is_plain = type(model).call is models.Sequential.call
        return getattr(model, "_functional", None) if is_plain else None
    if isinstance(model, Functional) and type(model).call is Functional.call:
        return model
    return None


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation of a graph.

    Args:
        operation: Layer or operation.
        node: The node of the graph that holds its arguments.
        inputs: Dict: id of a symbolic tensor in the arguments -> key of its value.
        outputs: List of keys of its outputs.
    """

    operation: object
    node: object
    inputs: dict
    outputs: list

    def run(self, values):
        """Calls the operation, and adds its outputs to a dict of values."""
        args, kwargs = self.node.arguments.fill_in(
            {tensor: values[key] for tensor, key in self.inputs.items()}
        )
        call = operation_fn(self.operation, training=False)  # as `Functional.call` does
        outputs = tree.flatten(call(*args, **kwargs))
        values.update(zip(self.outputs, outputs, strict=True))


class Steps:
    """The operations of a functional model in order, including those of nested models.

    Args:
        functional: `Functional` model.
    """

    def __init__(self, functional):
        self.functional = functional
        self.steps = []
        self._aliases = {}
        self.inputs = [(0, id(x)) for x in functional.inputs]
        self._scopes = 0
        self._add(functional, 0)
        last = {}  # key -> the last step that reads it
        for i, step in enumerate(self.steps):
            last.update(dict.fromkeys(step.inputs.values(), i))
        self._last = last

    def _add(self, functional, scope):
        for depth in sorted(functional._nodes_by_depth, reverse=True):
            for node in functional._nodes_by_depth[depth]:
                if node.operation and not node.is_input:
                    self._add_node(node, scope)

    def _add_node(self, node, scope):
        inner = functional_of(node.operation)
        inputs = {id(x): self._resolve(scope, x) for x in node.input_tensors}
        if inner is not None and self._can_take_apart(inner, inputs, node.input_tensors[0]):
            self._scopes += 1
            own = self._scopes
            self._aliases[own, id(inner.inputs[0])] = next(iter(inputs.values()))
            self._add(inner, own)
            key = self._resolve(own, inner.outputs[0])
            self._aliases[scope, id(node.outputs[0])] = key
            return
        outputs = [(scope, id(x)) for x in node.outputs]
        self.steps.append(Step(node.operation, node, inputs, outputs))

    def _can_take_apart(self, inner, inputs, given):
        """Whether a nested model has one input and one output, and takes the input as it is.

        Models convert inputs of other dtypes or ranks; layers do not.
        """
        if not len(inner.inputs) == len(inputs) == len(inner.outputs) == 1:
            return False
        expected = inner.inputs[0]
        is_same = (given.dtype, len(given.shape)) == (expected.dtype, len(expected.shape))
        return is_same and inner.dtype_policy == self.functional.dtype_policy

    def _resolve(self, scope, tensor):
        key = scope, id(tensor)
        return self._aliases.get(key, key)

    def first_step(self, layer):
        """Integer: the first step that calls a layer or a container of it; `None` if none does."""
        for i, step in enumerate(self.steps):
            if any(layer is x for x in _layers_of(step.operation)):
                return i
        return None

    def num_readers(self, layer):
        """Integer: how many steps and model outputs read the output of a layer.

        `None` if the layer has no step of its own.
        """
        keys = [key for step in self.steps if step.operation is layer for key in step.outputs]
        if not keys:
            return None
        read = [key for step in self.steps for key in step.inputs.values()]
        read += [self._resolve(0, output) for output in self.functional.outputs]
        return sum(key in keys for key in read)

    def drop_dead(self, values, index):
        """The values that steps from `index` on still read."""
        return {key: x for key, x in values.items() if self._last.get(key, -1) >= index}


def _layers_of(operation):
    return operation._flatten_layers() if isinstance(operation, layers.Layer) else []
