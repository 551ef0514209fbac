"""Which models XNNPACK runs sparsely, as a pruning policy.

XNNPACK (LiteRT's CPU backend) skips zeros only in 1x1 convolutions, and only within a cluster of
layers that it can run channels-first: from a 3x3 convolution with stride 2 to a global average
pooling.
(Elsen et al., "Fast sparse ConvNets", https://arxiv.org/abs/1911.09723; the rules are those of
`xnn_subgraph_rewrite_for_nchw` in XNNPACK's src/subgraph.c.)
"""

import itertools

import keras
from keras import layers

from keras_trim.policies import PruningPolicy

_ELEMENTWISE = (
    layers.Add,
    layers.Multiply,
    layers.ZeroPadding2D,
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
    layers.Dropout,
)
# Keras calls hard swish by its other name, in `activation.__name__` too.
_ACTIVATIONS = {"linear", "relu", "relu6", "leaky_relu", "elu", "sigmoid", "hard_silu"}
_ACTIVATION_PROBLEM = f"its activation must be one of {sorted(_ACTIVATIONS)}"
# What `x + y` and `x * y` add to a functional model: operations of `keras.ops`, not layers.
_OPERATIONS = ("Add", "Multiply")


class PruneForLatencyOnXNNPack(PruningPolicy):
    """Prunes only the 1x1 convolutions of models that XNNPACK can run sparsely.

    Raises (when a model is marked):
        ValueError: if the model is not built, is no Sequential or Functional model, or has a layer
            that XNNPACK cannot run channels-first; it names the layer.
    """

    def allow_pruning(self, layer):
        return _is_1x1_convolution(layer)

    def ensure_model_supports_pruning(self, model):
        graph = _Graph(model)
        starts = graph.search(
            graph.inputs, graph.consumers, lambda layer: _starts_cluster(layer, graph)
        )
        if not starts:
            raise ValueError(
                "XNNPACK runs a model sparsely only if every input passes through a 3x3 `Conv2D` "
                "on 3 channels with strides=2 and padding='valid', right behind a "
                f"`ZeroPadding2D(1)`. Received: model={model.name}, which has none on some input"
            )
        ends = graph.search(graph.outputs, graph.producers, _ends_cluster)
        if not ends:
            raise ValueError(
                "XNNPACK runs a model sparsely only if every output passes through a "
                f"`GlobalAveragePooling2D`. Received: model={model.name}, which has none on some "
                "output"
            )
        for layer in starts:
            if not _has_known_activation(layer):
                raise ValueError(_message(_ACTIVATION_PROBLEM, layer))
        after_starts = [layer for start in starts for layer in graph.consumers(start)]
        for layer in graph.between(after_starts, ends):
            problem = _cluster_problem(layer, graph)
            if problem:
                raise ValueError(_message(problem, layer))


def _message(problem, layer):
    return (
        f"XNNPACK cannot run this model sparsely: {problem}. "
        f"Received: layer '{layer.name}' ({type(layer).__name__})"
    )


def _is_1x1_convolution(layer):
    return isinstance(layer, layers.Conv2D) and tuple(layer.kernel_size) == (1, 1)


def _starts_cluster(layer, graph):
    if not isinstance(layer, layers.Conv2D) or isinstance(layer, layers.DepthwiseConv2D):
        return False
    return (
        tuple(layer.kernel.shape[:3]) == (3, 3, 3)
        and tuple(layer.strides) == (2, 2)
        and layer.padding == "valid"
        and graph.padding_before(layer) == 1
    )


def _ends_cluster(layer):
    return isinstance(layer, layers.GlobalAveragePooling2D)


def _cluster_problem(layer, graph):
    """Why XNNPACK cannot run a layer within the cluster, or `None`."""
    if isinstance(layer, (*_ELEMENTWISE, layers.InputLayer)):  # an input of a nested model
        return None
    if isinstance(layer, layers.DepthwiseConv2D):
        return _depthwise_problem(layer, graph)
    if isinstance(layer, layers.Conv2D):
        is_plain = layer.groups == 1 and tuple(layer.strides) == tuple(layer.dilation_rate) == (
            1,
            1,
        )
        if not _is_1x1_convolution(layer) or not is_plain:
            return (
                "within the cluster a convolution must be 1x1, without strides, dilation or groups"
            )
        return None if _has_known_activation(layer) else _ACTIVATION_PROBLEM
    if isinstance(layer, layers.GlobalAveragePooling2D):
        return None if layer.keepdims else "its global average pooling needs keepdims=True"
    if isinstance(layer, layers.BatchNormalization):
        return None if layer.axis in (3, -1) else "its batch normalization must be on axis 3"
    if isinstance(layer, layers.UpSampling2D):
        is_bilinear = layer.interpolation == "bilinear"
        return None if is_bilinear else "its upsampling must be bilinear"
    if isinstance(layer, layers.Activation):
        return None if _has_known_activation(layer) else _ACTIVATION_PROBLEM
    is_operation = not isinstance(layer, layers.Layer) and type(layer).__name__ in _OPERATIONS
    if is_operation and len(graph.producers(layer)) == 2:  # not `x + 1`
        return None
    return "it has no channels-first kernel for this layer"


def _depthwise_problem(layer, graph):
    kernel, strides = tuple(layer.kernel_size), tuple(layer.strides)
    radius = {(3, 3): 1, (5, 5): 2}.get(kernel)
    same = layer.padding == "same" and strides == (1, 1)
    padded = (
        layer.padding == "valid"
        and strides in ((1, 1), (2, 2))
        and graph.padding_before(layer) == radius
    )
    plain = layer.depth_multiplier == 1 and tuple(layer.dilation_rate) == (1, 1)
    if radius and plain and (same or padded):
        return None if _has_known_activation(layer) else _ACTIVATION_PROBLEM
    return (
        "within the cluster a depthwise convolution must be 3x3 or 5x5, with depth_multiplier=1 "
        "and no dilation, and either padding='same' with strides=1, or padding='valid' with "
        "strides of 1 or 2 behind a ZeroPadding2D of 1 (3x3) or 2 (5x5) on each side"
    )


def _has_known_activation(layer):
    activation = layer.activation
    return (
        isinstance(activation, _ELEMENTWISE)
        or getattr(activation, "__name__", None) in _ACTIVATIONS
    )


def _has_graph(operation):
    # Keras does not export the class of functional models; they have `operations`.
    return isinstance(operation, keras.Sequential) or (
        isinstance(operation, keras.Model) and hasattr(operation, "operations")
    )


class _Graph:
    """The layers of a Sequential or Functional model, nested models inlined."""

    def __init__(self, model):
        if not _has_graph(model):
            raise ValueError(
                "`PruneForLatencyOnXNNPack` reads a model's graph, so it takes Sequential and "
                f"Functional models. Received: model={model.name} ({type(model).__name__})"
            )
        if not model.built or not getattr(model, "inputs", None):
            raise ValueError(
                "`PruneForLatencyOnXNNPack` needs a model that is built: give it a `keras.Input` "
                f"or call `model.build(input_shape)`. Received: model={model.name}"
            )
        self._consumers, self._producers = {}, {}
        self.inputs, self.outputs = self._add(model)

    def _add(self, model):
        """Adds a model's layers; returns those at its inputs and at its outputs."""
        functional = model._functional if isinstance(model, keras.Sequential) else model
        ends = {}  # operation -> (its first layers, its last layers)
        for operation in functional.operations:
            if _has_graph(operation):
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

    def consumers(self, layer):
        return self._consumers[layer]

    def producers(self, layer):
        return self._producers[layer]

    def padding_before(self, layer):
        """The padding, equal on all sides, of a `ZeroPadding2D` that alone feeds a layer, or 0."""
        producers = self.producers(layer)
        while len(producers) == 1 and isinstance(producers[0], layers.InputLayer):
            producers = self.producers(producers[0])  # out of a nested model
        if len(producers) != 1 or not isinstance(producers[0], layers.ZeroPadding2D):
            return 0
        (top, bottom), (left, right) = producers[0].padding
        return top if top == bottom == left == right else 0

    def search(self, sources, neighbours, is_found):
        """The layers found first on every path from `sources`; none if some path has none."""
        found, seen, waiting = [], set(), list(sources)
        while waiting:
            layer = waiting.pop()
            if layer in seen:
                continue
            seen.add(layer)
            if is_found(layer):
                found.append(layer)
            elif not neighbours(layer):
                return []
            else:
                waiting.extend(neighbours(layer))
        return found

    def between(self, sources, ends):
        """The layers on the paths from `sources` to `ends`, the ends included."""
        seen, waiting = [], list(sources)
        while waiting:
            layer = waiting.pop()
            if layer not in seen:
                seen.append(layer)
                if layer not in ends:
                    waiting.extend(self.consumers(layer))
        return seen
