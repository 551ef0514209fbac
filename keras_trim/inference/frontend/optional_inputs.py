"""Inputs that may be None: each set of absent ones gets a graph of its own."""

import contextlib
import itertools

from keras import tree

from keras_trim.inference.frontend.importer import import_model
from keras_trim.inference.frontend.model_structure import function_of, is_graph

_MOST = 4  # inputs; twice as many graphs for each


def import_with_optional_inputs(model):
    """Converts a model, and once more for each set of its optional inputs.

    Args:
        model: Keras model, built.

    Returns:
        Pair: the `Graph` with all inputs, and a dictionary: tuple of indices of inputs -> the
        `Graph` without them. Sets that a layer cannot do without are left out.

    Raises:
        ValueError: if the model is not built, or has too many optional inputs.
    """
    graph, optional = import_model(model), _optional_inputs(model)
    if len(optional) > _MOST:
        raise ValueError(
            f"The engine takes models with at most {_MOST} optional inputs. "
            f"Received: model={model.name}, with {len(optional)}"
        )
    without = {}
    for count in range(1, len(optional) + 1):
        for absent in itertools.combinations(optional, count):
            with contextlib.suppress(Exception):  # a layer that needs these inputs
                without[absent] = import_model(model, absent)
    for number in optional:
        graph.input_specs[number]["optional"] = True
    return graph, without


def _optional_inputs(model):
    """Returns a list of the indices of the inputs of a model that may be None."""
    if not is_graph(model):
        return []
    tensors = enumerate(tree.flatten(function_of(model)[1]))
    layer_of = {i: getattr(x._keras_history.operation, "optional", False) for i, x in tensors}
    return [i for i, is_optional in layer_of.items() if is_optional]
