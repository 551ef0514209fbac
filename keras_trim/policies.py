"""Which weights of which layer can be pruned, and why not the others."""

import abc
import dataclasses
import re

import keras

from keras_trim.patterns import MatrixView

_PRUNABLE_NAME = re.compile(r"(^|_)(kernel|embeddings?)(_\d+)?$")
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
# To a user these are one layer, though their weights belong to cells and projections in them.
_WHOLES = (
    keras.layers.RNN,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
)


class PruningPolicy(abc.ABC):
    """Decides which layers of a model are pruned. Subclass it to write your own.

    Example:

    ```python
    class AllButTheLast(keras_trim.PruningPolicy):
        def allow_pruning(self, layer):
            return layer.name != "logits"

        def ensure_model_supports_pruning(self, model):
            pass
    ```
    """

    @abc.abstractmethod
    def allow_pruning(self, layer):
        """Returns whether the prunable weights of `layer` may be pruned.

        Called for every layer that owns weights, those inside wrappers and other layers too.
        Recurrent layers and attention are asked about as a whole, not cell by cell.
        """

    @abc.abstractmethod
    def ensure_model_supports_pruning(self, model):
        """Raises a `ValueError` if the policy makes no sense for `model`."""


class PrunableLayer(abc.ABC):
    """A custom layer that names the weights to prune itself.

    Inheriting is optional: a method `get_prunable_weights` on any layer does the same. What it
    returns replaces the rule by which weights are chosen, for the layer and all inside it.

    Example:

    ```python
    class Mixture(keras.layers.Layer, keras_trim.PrunableLayer):
        def get_prunable_weights(self):
            return [self.experts]
    ```
    """

    @abc.abstractmethod
    def get_prunable_weights(self):
        """Returns the list of this layer's variables that shall be pruned."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A weight of a layer, with the reason why it is not prunable (`None`: it is)."""

    layer: keras.layers.Layer
    variable: keras.Variable
    reason: str | None

    @property
    def view(self):
        return matrix_view(self.layer, self.variable)


def candidates(root, policy=None):
    """Lists every weight of a layer or model, at any depth, each once.

    Args:
        root: Keras layer or model. Layers inside it that are not built have no weights yet.
        policy: `PruningPolicy` or `None`.

    Returns:
        List of `Candidate`.
    """
    found, seen, governed, wholes = [], set(), {}, {}
    for layer in root._flatten_layers():
        if isinstance(layer, _WHOLES):
            for inner in layer._flatten_layers():
                wholes.setdefault(id(inner), layer)
        if hasattr(layer, "get_prunable_weights") and layer.built:
            chosen = {id(variable) for variable in _checked_prunable_weights(layer)}
            for inner in layer._flatten_layers():
                governed.setdefault(id(inner), chosen)
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            chosen = governed.get(id(layer))
            if chosen is None:
                reason = _why_not(layer, variable)
            elif id(variable) in chosen:
                reason = None
            else:
                reason = "not returned by get_prunable_weights()"
            asked = wholes.get(id(layer), layer)
            if reason is None and policy is not None and not policy.allow_pruning(asked):
                reason = f"{type(policy).__name__} does not allow it"
            found.append(Candidate(layer, variable, reason))
    return found


def _checked_prunable_weights(layer):
    weights = layer.get_prunable_weights()
    if not isinstance(weights, (list, tuple)):
        raise ValueError(
            f"`get_prunable_weights()` of layer '{layer.name}' must return a list of variables. "
            f"Received: {weights!r}"
        )
    own = {id(variable) for variable in layer.variables}
    for weight in weights:
        if id(weight) not in own or not keras.backend.is_float_dtype(weight.dtype):
            raise ValueError(
                f"`get_prunable_weights()` of layer '{layer.name}' must return a list of the "
                f"layer's own float variables. Received: {weight!r}"
            )
    return weights


def _why_not(layer, variable):
    """The rule: float kernels and embedding tables of rank 2 and more, except depthwise ones."""
    if not keras.backend.is_float_dtype(variable.dtype):
        return f"dtype {variable.dtype} is not a float"
    rank = len(variable.shape)
    if rank < 2:
        return f"rank {rank}: biases and scales are few and matter"
    is_grouped = (
        getattr(layer, "groups", 1) > 1 and variable.name == "kernel" and variable.shape[-2] == 1
    )
    if isinstance(layer, _DEPTHWISE) or "depthwise" in variable.name or is_grouped:
        return "depthwise kernel: few weights, each of them matters"
    if not _PRUNABLE_NAME.search(variable.name) or variable.name.startswith("lora_"):
        return (
            f"'{variable.name}' is neither a kernel nor an embedding table; to prune it, return "
            "it from get_prunable_weights()"
        )
    return None


def is_embedding(layer, variable):
    """Whether a weight is a table of rows to look up, so that no axis of it is summed over."""
    return isinstance(layer, keras.layers.Embedding) and "embeddings" in variable.name


def matrix_view(layer, variable):
    """How a layer's weight is read as matrices of (inputs, outputs)."""
    rank = len(variable.shape)
    if isinstance(layer, _TRANSPOSED) and variable.name == "kernel":
        return MatrixView(tuple(range(rank - 2)), (rank - 1,), (rank - 2,))
    if isinstance(layer, keras.layers.EinsumDense) and variable.name == "kernel":
        operands, output = layer.equation.replace(" ", "").split("->")
        data, kernel = (labels.replace("...", "") for labels in operands.split(","))
        inputs = tuple(i for i, label in enumerate(kernel) if label not in output)
        stack = tuple(i for i, label in enumerate(kernel) if label in output and label in data)
        outputs = tuple(i for i in range(rank) if i not in inputs + stack)
        return MatrixView(stack, inputs, outputs)
    return MatrixView.default(rank)
