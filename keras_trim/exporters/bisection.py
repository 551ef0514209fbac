"""Finds the layer of a model that a file computes differently from the user's backend."""

import keras
import numpy as np

from keras_trim.exporters.cases import Case, call, largest_difference
from keras_trim.exporters.conversion import trial
from keras_trim.exporters.preparation import Prepared
from keras_trim.exporters.verification import TOLERANCE


def first_difference(prepared, converter, case):
    """Finds the first layer whose outputs differ, using a file that returns all layers' outputs.

    Args:
        prepared: `Prepared`.
        converter: Module of a converter.
        case: `Case` for which a file differs.

    Returns:
        The layer. `None` if no layer differs, or not all layers can be converted.
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
    except Exception:  # an inner layer may return something that files cannot
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
    """Lists the layers of a model and their outputs, in execution order."""
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
    """Returns the first layer of a nested model that differs, or `None`."""
    if not isinstance(layer, keras.Model) or not getattr(layer, "inputs", None):
        return None
    node = tensor._keras_history.operation._inbound_nodes[tensor._keras_history.node_index]
    inputs = [known.get(id(given)) for given in node.input_tensors]
    if len(inputs) != len(layer.inputs) or any(array is None for array in inputs):
        return None
    inner = Prepared(layer, prepared.source, prepared.names, prepared.precision, [])
    return first_difference(inner, converter, Case(case.name, list(map(np.asarray, inputs)), []))
