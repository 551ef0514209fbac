"""Checks which layers XNNPACK, LiteRT's CPU backend, runs sparsely.

XNNPACK only skips zeros in 1x1 convolutions, and only within a cluster of layers that it can run
channels-first: from a 3x3 convolution with stride 2 to a global average pooling.
(Elsen et al., "Fast sparse ConvNets", https://arxiv.org/abs/1911.09723. The rules are from
`xnn_subgraph_rewrite_for_nchw` in XNNPACK's src/subgraph.c, and the list of layers from the README
of LiteRT's XNNPACK delegate.)
"""

import dataclasses

from keras import layers

from keras_trim.compatibility.graph import Graph
from keras_trim.compatibility.report import DeploymentReport, Obstacle
from keras_trim.compatibility.weights import kernels

_ELEMENTWISE = (
    layers.Add,
    layers.Multiply,
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
)
# Keras calls hard swish `hard_silu`, including in `activation.__name__`.
_ACTIVATIONS = {"linear", "relu", "relu6", "leaky_relu", "elu", "sigmoid", "hard_silu"}
_ACTIVATION_PROBLEM = f"its activation must be one of {sorted(_ACTIVATIONS)}"
# XNNPACK itself moves the channels first. LiteRT's operations have them last, so converters put
# transpositions around layers that have them first.
_FORMAT_PROBLEM = "its data_format must be 'channels_last'"
# `x + y` and `x * y` add operations of `keras.ops` to a functional model, not layers.
_OPERATIONS = ("Add", "Multiply")
_MIN_SPARSITY = 2 / 3
_NOTES = [
    "XNNPACK runs sparsely on ARM, WebAssembly, RISC-V and Hexagon, and on x86 only without AVX "
    "(on any with AVX it takes dense to be faster)",
    "zeros are skipped in float32 and float16 inference, not in int8",
]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A rule that a model breaks.

    Args:
        rule: String. The condition that is not met.
        layer: The layer that breaks it, or `None` for the model as a whole.
    """

    rule: str
    layer: object = None


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The layers that XNNPACK would run channels-first, and the problems that prevent it.

    Args:
        layers: List of the layers after the first convolution, up to the global average pooling.
        problems: List of `Problem`. If empty, XNNPACK can run them.
    """

    layers: list
    problems: list


def find_cluster(graph):
    """Finds the cluster in a `Graph`, and what keeps XNNPACK from running it sparsely."""
    starts = graph.search(
        graph.inputs, graph.consumers, lambda layer: _starts_cluster(layer, graph)
    )
    if not starts:
        return Cluster(
            [],
            [
                Problem(
                    "every input passes through a 3x3 `Conv2D` on 3 channels with strides=2 and "
                    "padding='valid', right behind a `ZeroPadding2D(1)`"
                )
            ],
        )
    ends = graph.search(graph.outputs, graph.producers, _ends_cluster)
    if not ends:
        return Cluster([], [Problem("every output passes through a `GlobalAveragePooling2D`")])
    problems = [Problem(_FORMAT_PROBLEM, layer) for layer in starts if _is_channels_first(layer)]
    problems += [
        Problem(_ACTIVATION_PROBLEM, layer) for layer in starts if not _has_known_activation(layer)
    ]
    after_starts = [layer for start in starts for layer in graph.consumers(start)]
    within = graph.between(after_starts, ends)
    for layer in within:
        rule = _cluster_problem(layer, graph)
        if rule:
            problems.append(Problem(rule, layer))
    return Cluster(within, problems)


def is_1x1_convolution(layer):
    """Whether a layer is a 1x1 convolution, the only kind in which XNNPACK skips zeros."""
    return (
        isinstance(layer, layers.Conv2D)
        and not isinstance(layer, layers.DepthwiseConv2D)
        and tuple(layer.kernel_size) == (1, 1)
    )


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
    """Returns why XNNPACK cannot run a layer within the cluster, or `None`."""
    if _is_channels_first(layer):
        return _FORMAT_PROBLEM
    if isinstance(layer, _ELEMENTWISE):
        return None
    if isinstance(layer, layers.ZeroPadding2D):
        return _padding_problem(layer, graph)
    if isinstance(layer, layers.DepthwiseConv2D):
        return _depthwise_problem(layer, graph)
    if isinstance(layer, layers.Conv2D):
        is_plain = layer.groups == 1 and tuple(layer.strides) == tuple(layer.dilation_rate) == (
            1,
            1,
        )
        if not is_1x1_convolution(layer) or not is_plain:
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


def _padding_problem(layer, graph):
    # XNNPACK pads channels-first only as part of a convolution.
    if all(isinstance(consumer, layers.DepthwiseConv2D) for consumer in graph.consumers(layer)):
        return None
    return "within the cluster a ZeroPadding2D must feed a depthwise convolution"


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


def _is_channels_first(layer):
    return getattr(layer, "data_format", None) == "channels_first"


def _has_known_activation(layer):
    activation = layer.activation
    return (
        isinstance(activation, _ELEMENTWISE)
        or getattr(activation, "__name__", None) in _ACTIVATIONS
    )


def check(model):
    """Checks a model against XNNPACK's rules; see `keras_trim.check`."""
    weights = kernels(model)
    cluster = find_cluster(Graph(model, "The check for XNNPACK"))
    inside = [
        weight
        for weight in weights
        if is_1x1_convolution(weight.layer) and weight.layer in cluster.layers
    ]
    size = sum(weight.values.size for weight in inside)
    sparsity = sum(weight.zeros for weight in inside) / size if size else 0.0
    rows = [weight.check(*_broken_rule(weight, cluster, sparsity)) for weight in weights]
    obstacles = [
        Obstacle(
            problem.layer and problem.layer.name,
            problem.layer and type(problem.layer).__name__,
            problem.rule if problem.layer else f"XNNPACK needs that {problem.rule}",
        )
        for problem in cluster.problems
    ]
    return DeploymentReport("xnnpack", rows, obstacles, list(_NOTES))


def _broken_rule(weight, cluster, sparsity):
    """Returns the rule that a weight breaks and the fix, or `None`, `None`."""
    layer = weight.layer
    if not is_1x1_convolution(layer):
        cure = "leave it dense: prune with PruneForLatencyOnXNNPack" if weight.zeros else None
        return "zeros are skipped in 1x1 Conv2D layers only", cure
    if cluster.problems:
        first = cluster.problems[0]
        if first.layer is layer:
            return first.rule, "change it, or leave it dense"
        where = f"'{first.layer.name}'" if first.layer else "the model"
        more = len(cluster.problems) - 1
        return (
            f"{where} is in the way{f', and {more} more' if more else ''} (below)",
            "change what is in the way",
        )
    if layer not in cluster.layers:
        return (
            "it is not between the first convolution and the global average pooling",
            "leave it dense",
        )
    if sparsity <= _MIN_SPARSITY:
        return (
            f"{sparsity:.2%} of the weights of all such layers are zero, not more than two thirds",
            "prune these layers further",
        )
    return None, None
