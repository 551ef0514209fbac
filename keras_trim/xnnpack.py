"""A pruning policy that follows XNNPACK's rules."""

import keras

from keras_trim.compatibility.graph import Graph
from keras_trim.compatibility.xnnpack import find_cluster, is_1x1_convolution
from keras_trim.policies import PruningPolicy


class PruneForLatencyOnXNNPack(PruningPolicy):
    """Prunes only the 1x1 convolutions of models that XNNPACK can run sparsely.

    `keras_trim.check(model, "xnnpack")` names all layers that prevent it.

    Raises (when a model is marked):
        ValueError: if the model is not built, is not a Sequential or Functional model, or has a
            layer that XNNPACK cannot run channels-first. The error names the layer.
    """

    def allow_pruning(self, layer: keras.layers.Layer) -> bool:
        return is_1x1_convolution(layer)

    def ensure_model_supports_pruning(self, model: keras.Model) -> None:
        cluster = find_cluster(Graph(model, "`PruneForLatencyOnXNNPack`"))
        if not cluster.problems:
            return
        rule, layer = cluster.problems[0].rule, cluster.problems[0].layer
        if layer is None:
            raise ValueError(
                f"XNNPACK runs a model sparsely only if {rule}. Received: model={model.name}, "
                "which breaks this rule"
            )
        raise ValueError(
            f"XNNPACK cannot run this model sparsely: {rule}. "
            f"Received: layer '{layer.name}' ({type(layer).__name__})"
        )
