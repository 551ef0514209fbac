"""Which weights of which layers can be pruned, and why the others cannot."""

import abc
import dataclasses

import keras

from keras_trim.kinds import matrix_view, why_not

# Users see these as one layer, although inner cells and projections hold their weights.
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
    def allow_pruning(self, layer: keras.layers.Layer) -> bool:
        """Returns whether the prunable weights of `layer` may be pruned.

        Called for every layer that owns weights, including those inside wrappers and other layers.
        For recurrent layers and attention it is called once for the whole layer, not per cell.
        """

    @abc.abstractmethod
    def ensure_model_supports_pruning(self, model: keras.Model) -> None:
        """Raises a `ValueError` if the policy makes no sense for `model`."""

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"


class PrunableLayer(abc.ABC):
    """A custom layer that names its prunable weights.

    Inheriting is optional: any layer may have a method `get_prunable_weights`. What it returns
    replaces the rule for choosing weights, for the layer and all layers inside it.

    Example:

    ```python
    class Mixture(keras.layers.Layer, keras_trim.PrunableLayer):
        def get_prunable_weights(self):
            return [self.experts]
    ```
    """

    @abc.abstractmethod
    def get_prunable_weights(self) -> list[keras.Variable]:
        """Returns the list of this layer's variables to prune."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A weight of a layer.

    Args:
        layer: The innermost Keras layer that holds the weight.
        variable: The Keras variable.
        reason: String. Why it is not prunable, or `None` if it is.
        is_in_doubt: Bool. Whether the weight may well be a matrix but the rule cannot tell.
    """

    layer: keras.layers.Layer
    variable: keras.Variable
    reason: str | None
    is_in_doubt: bool = False

    @property
    def view(self):
        return matrix_view(self.layer, self.variable)


def candidates(root, policy=None):
    """Lists every weight of a layer or model, at any depth, each once.

    Args:
        root: Keras layer or model. Unbuilt layers inside it have no weights yet.
        policy: `PruningPolicy` or `None`.

    Returns:
        List of `Candidate`.
    """
    found, governed, wholes = [], {}, {}
    for layer in in_order(root):
        if isinstance(layer, _WHOLES):
            for inner in layer._flatten_layers():
                wholes.setdefault(id(inner), layer)
        if hasattr(layer, "get_prunable_weights") and layer.built:
            chosen = {id(variable) for variable in _checked_prunable_weights(layer)}
            for inner in layer._flatten_layers():
                governed.setdefault(id(inner), chosen)
    for layer, variable in _owned_variables(root):
        chosen, is_in_doubt = governed.get(id(layer)), False
        if chosen is None:
            left_out = why_not(layer, variable)
            reason = left_out and left_out.reason
            is_in_doubt = left_out is not None and not left_out.is_by_design
        elif id(variable) in chosen:
            reason = None
        else:
            reason = "not returned by get_prunable_weights()"
        asked = wholes.get(id(layer), layer)
        may_be_pruned = reason is None or is_in_doubt
        if may_be_pruned and policy is not None and not policy.allow_pruning(asked):
            reason, is_in_doubt = f"{type(policy).__name__} does not allow it", False
        found.append(Candidate(layer, variable, reason, is_in_doubt))
    return found


def in_order(root: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer and all inside it, each once, where they stand: Keras turns nested ones around."""
    found: dict[int, keras.layers.Layer] = {}

    def visit(layer: keras.layers.Layer) -> None:
        if id(layer) not in found:
            found[id(layer)] = layer
            for inner in layer._layers:
                visit(inner)

    visit(root)
    return list(found.values())


def _owned_variables(root):
    """Lists tuples (innermost layer that holds it, weight), one per weight.

    A wrapper such as `SpectralNormalization` may hold the kernel of its inner layer as well, but
    only the inner layer tells what the kernel is.
    """
    holders, variables = {}, {}
    for layer in in_order(root):
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            variables[id(variable)] = variable
            holders.setdefault(id(variable), []).append(layer)
    return [(_innermost(holders[key]), variable) for key, variable in variables.items()]


def _innermost(layers):
    """Returns the first layer that contains none of the others."""
    for layer in layers[:-1]:
        inside = {id(inner) for inner in layer._flatten_layers(include_self=False)}
        if not any(id(other) in inside for other in layers):
            return layer
    return layers[-1]


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
