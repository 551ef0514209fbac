"""Which layer of a model a file computes otherwise than the user's backend does."""

import keras
import numpy as np

from keras_trim.exporters.cases import Case, call, largest_difference
from keras_trim.exporters.conversion import trial
from keras_trim.exporters.preparation import Prepared
from keras_trim.exporters.verification import TOLERANCE


def first_difference(prepared, converter, case):
    """Finds the first layer whose outputs differ, by a file that returns those of all layers.

    Args:
        prepared: `Prepared`.
        converter: Module of a converter.
        case: `Case` for which a file differs.

    Returns:
        The layer, or `None`: where each layer alone is right, or not all can be converted.
    """
    functional = getattr(prepared.model, "_functional", None) or prepared.model
    layers, tensors = _steps(functional)
    if not tensors:
        return None
    try:
        probe = keras.Model(functional.input, tensors)
        probe = Prepared(probe, prepared.source, prepared.names, prepared.precision, [])
        expected = call(probe.model, case.inputs)
        (values,) = trial(probe, converter, [Case(case.name, case.inputs, [])])
    except Exception:  # a layer in the middle may give what no file can
        return None
    if len(values) != len(expected):
        return None
    known = {
        id(tensor): array for tensor, array in zip(functional.inputs, case.inputs, strict=True)
    }
    for layer, tensor, value, target in zip(layers, tensors, values, expected, strict=True):
        known[id(tensor)] = target
        if largest_difference([value], [target]) > TOLERANCE:
            return _within(layer, tensor, known, prepared, converter, case) or layer
    return None


def _steps(functional):
    """The layers of a model and their outputs, in the order in which they run."""
    layers, tensors = [], []
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        for node in functional._nodes_by_depth[depth]:
            if node.is_input:
                continue
            for tensor in node.output_tensors:
                layers.append(node.operation)
                tensors.append(tensor)
    return layers, tensors


def _within(layer, tensor, known, prepared, converter, case):
    """The layer of a nested model that is to blame, or `None`."""
    if not isinstance(layer, keras.Model) or not getattr(layer, "inputs", None):
        return None
    node = tensor._keras_history.operation._inbound_nodes[tensor._keras_history.node_index]
    inputs = [known.get(id(given)) for given in node.input_tensors]
    if len(inputs) != len(layer.inputs) or any(array is None for array in inputs):
        return None
    inner = Prepared(layer, prepared.source, prepared.names, prepared.precision, [])
    return first_difference(inner, converter, Case(case.name, list(map(np.asarray, inputs)), []))
