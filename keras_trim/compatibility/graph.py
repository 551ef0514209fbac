"""Reads the layers of a model as a graph, from Keras's own record of its calls."""

import itertools

import keras
from keras import layers

# Layers that do nothing at inference, so they leave no trace in a converted file.
# (`SpatialDropout...` are subclasses of `Dropout`.)
_TRACELESS = (
    layers.InputLayer,  # of a nested model
    layers.Identity,
    layers.Dropout,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ActivityRegularization,
)


def has_graph(operation):
    """Whether an operation is a Sequential or Functional model."""
    # Keras does not export the class of functional models, but they have `operations`.
    return isinstance(operation, keras.Sequential) or (
        isinstance(operation, keras.Model) and hasattr(operation, "operations")
    )


class Graph:
    """The layers of a Sequential or Functional model, with nested models inlined.

    Layers that leave no trace in a converted file, such as Dropout, are removed.

    Args:
        model: Built Keras model.
        reader: String. The caller, named in errors.

    Raises:
        ValueError: if the model is not built, or is not a Sequential or Functional model.
    """

    def __init__(self, model, reader):
        if not has_graph(model):
            raise ValueError(
                f"{reader} reads a model's graph, so it takes Sequential and Functional models: "
                "write a subclassed model as one of these. "
                f"Received: model={model.name} ({type(model).__name__})"
            )
        if not model.built or not getattr(model, "inputs", None):
            raise ValueError(
                f"{reader} needs a model that is built: give it a `keras.Input` or call "
                f"`model.build(input_shape)`. Received: model={model.name}"
            )
        self._consumers, self._producers = {}, {}
        self.inputs, self.outputs = self._add(model)
        for layer in list(self._consumers):
            if isinstance(layer, _TRACELESS) and layer not in self.inputs:
                self._bypass(layer)

    def _add(self, model):
        """Adds a model's layers. Returns those at its inputs and those at its outputs."""
        functional = model._functional if isinstance(model, keras.Sequential) else model
        ends = {}  # operation -> (its first layers, its last layers)
        for operation in functional.operations:
            if has_graph(operation):
                ends[operation] = self._add(operation)
            else:
                ends[operation] = ([operation], [operation])
                self._consumers.setdefault(operation, [])
                self._producers.setdefault(operation, [])
        for nodes in functional._nodes_by_depth.values():
            for node in nodes:
                for parent in node.parent_nodes:
                    for source in ends[parent.operation][1]:
                        for target in ends[node.operation][0]:
                            self._consumers[source].append(target)
                            self._producers[target].append(source)
        inputs = [ends[tensor._keras_history.operation][0] for tensor in functional.inputs]
        outputs = [ends[tensor._keras_history.operation][1] for tensor in functional.outputs]
        return list(itertools.chain(*inputs)), list(itertools.chain(*outputs))

    def _bypass(self, layer):
        """Removes a layer and connects its neighbors."""
        consumers, producers = self._consumers.pop(layer), self._producers.pop(layer)
        for producer in producers:
            self._consumers[producer] = _replace(self._consumers[producer], layer, consumers)
        for consumer in consumers:
            self._producers[consumer] = _replace(self._producers[consumer], layer, producers)
        self.outputs = _replace(self.outputs, layer, producers)

    def consumers(self, layer):
        return self._consumers[layer]

    def producers(self, layer):
        return self._producers[layer]

    def padding_before(self, layer):
        """Returns the padding, equal on all sides, of a layer's only producer, or 0.

        The producer must be a `ZeroPadding2D`.
        """
        producers = self.producers(layer)
        if len(producers) != 1 or not isinstance(producers[0], layers.ZeroPadding2D):
            return 0
        (top, bottom), (left, right) = producers[0].padding
        return top if top == bottom == left == right else 0

    def search(self, sources, neighbors, is_found):
        """Returns the first match on every path from `sources`; none if some path has no match."""
        found, seen, waiting = [], set(), list(sources)
        while waiting:
            layer = waiting.pop()
            if layer in seen:
                continue
            seen.add(layer)
            if is_found(layer):
                found.append(layer)
            elif not neighbors(layer):
                return []
            else:
                waiting.extend(neighbors(layer))
        return found

    def between(self, sources, ends):
        """Lists the layers on the paths from `sources` to `ends`, including the ends."""
        seen, waiting = [], list(sources)
        while waiting:
            layer = waiting.pop()
            if layer not in seen:
                seen.append(layer)
                if layer not in ends:
                    waiting.extend(self.consumers(layer))
        return seen


def _replace(items, item, others):
    """Returns `items` with each `item` replaced by `others`."""
    return list(itertools.chain(*(others if each is item else [each] for each in items)))
