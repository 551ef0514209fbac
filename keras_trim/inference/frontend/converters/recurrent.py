"""Converts recurrent layers and their wrappers."""

import keras
import numpy as np
from keras import layers

from keras_trim.inference.frontend.converters.activation import known_activation
from keras_trim.inference.frontend.converters.registry import array, converts, only
from keras_trim.inference.frontend.keras_call import FunctionCall, KerasCall
from keras_trim.inference.ir import operations

_CELLS = {
    layers.LSTMCell: "lstm",
    layers.GRUCell: "gru",
    layers.SimpleRNNCell: "simple",
}


@converts(layers.LSTM, layers.GRU, layers.SimpleRNN, layers.RNN)
def _rnn(layer, reader, sequences, initial_state=None, mask=None, training=None):
    return _add(layer, reader, sequences, initial_state, mask, training=training)


def _add(layer, reader, x, initial_state=None, mask=None, reverse_output=False, training=None):
    """Adds a layer; returns the symbol of its output, or a list of the output and states."""
    only(isinstance(layer, layers.RNN), "a layer that is not recurrent")
    only(type(layer).call in _CALLS, "a subclass with a call of its own")
    only(not layer.stateful, "a state that outlives the call")
    only(x.shape is not None and len(x.shape) == 3, "inputs of another rank")
    cells = layer.cell.cells if type(layer.cell) is layers.StackedRNNCells else [layer.cell]
    if len(cells) > 1:
        only(initial_state is None and mask is None, "stacked cells with a state or a mask")
        only(not layer.return_state and not reverse_output, "stacked cells that return a state")
    dropped = [getattr(cell, name, 0) for cell in cells for name in _DROPOUTS]
    only(not (training and any(dropped)), "dropout that is on")
    for i, cell in enumerate(cells):
        is_first, is_last = i == 0, i == len(cells) - 1
        outputs = _add_cell(
            cell, reader, x, initial_state, mask,
            go_backwards=layer.go_backwards and is_first,
            return_sequences=layer.return_sequences or not is_last,
            return_state=layer.return_state,
            reverse_output=reverse_output and layer.return_sequences,
            zero_output_for_mask=_zero_output(layer, mask),
        )  # fmt: skip
        x = outputs[0]
    return outputs if layer.return_state else x


_DROPOUTS = ("dropout", "recurrent_dropout")
_CALLS = {cls.call for cls in (layers.LSTM, layers.GRU, layers.SimpleRNN, layers.RNN)}


def _zero_output(layer, mask):
    if mask is None:
        return False
    # The result of these combinations depends on Keras's backend.
    only(not (layer.unroll and layer.zero_output_for_mask), "an unrolled loop with a mask")
    only(layer.return_sequences or not layer.zero_output_for_mask, "a last output set to zero")
    return bool(layer.zero_output_for_mask)


def _add_cell(cell, reader, x, initial_state, mask, **flags):
    only(type(cell) in _CELLS, "a cell of another kind")
    kind = _CELLS[type(cell)]
    units = cell.units
    recurrent_kernel = array(cell.recurrent_kernel)
    outputs = recurrent_kernel.shape[1]
    bias = np.zeros(outputs, np.float32)
    recurrent_bias = np.zeros(outputs, np.float32)
    if cell.use_bias:
        bias = array(cell.bias)
        if kind == "gru" and cell.reset_after:
            bias, recurrent_bias = bias
    if kind == "gru" and not cell.reset_after:
        kind = "gru_reset_before"
    states = [] if initial_state is None else keras.tree.flatten(initial_state)
    only(all(isinstance(state, reader.symbol) for state in states), "a constant initial state")
    only(len(states) in (0, 2 if kind == "lstm" else 1), "another number of states")
    only(all(state.shape[-1] == units for state in states), "states of another shape")
    if mask is not None:
        only(isinstance(mask, reader.symbol) and len(mask.shape) == 2, "a mask of another rank")
        only(not states, "an initial state with a mask")
    operation = operations.Recurrent(
        kind, array(cell.kernel), recurrent_kernel, bias, recurrent_bias,
        activation=_activation(cell.activation),
        recurrent_activation=_activation(getattr(cell, "recurrent_activation", None)),
        has_initial_state=bool(states),
        has_mask=mask is not None,
        **flags,
    )  # fmt: skip
    inputs = [x, *states] + ([] if mask is None else [mask])
    shape = (x.shape[0], units)
    shapes = [(*x.shape[:2], units) if flags["return_sequences"] else shape]
    if flags["return_state"]:
        shapes += [shape] * (2 if kind == "lstm" else 1)
    return reader.add_all(operation, inputs, reader.name, shapes)


def _activation(activation):
    if activation is None or activation is keras.activations.linear:
        return None, 0.0, 0.0
    known = known_activation(activation)
    only(known is not None, "another activation")
    return known


@converts(layers.Bidirectional)
def _bidirectional(layer, reader, sequences, initial_state=None, mask=None, training=None):
    states = [] if initial_state is None else list(initial_state)
    half = len(states) // 2
    directions = []
    for inner, given, reverse in (
        (layer.forward_layer, states[:half], False),
        (layer.backward_layer, states[half:], True),
    ):
        outputs = _add(inner, reader, sequences, given or None, mask, reverse, training)
        directions.append(outputs if isinstance(outputs, list) else [outputs])
    (y, *y_states), (z, *z_states) = directions
    if layer.merge_mode is None:
        merged = [y, z]
    elif layer.merge_mode == "concat":
        merged = [reader.add(operations.Concatenate(len(y.shape) - 1), [y, z], reader.name)]
    else:
        function = "multiply" if layer.merge_mode == "mul" else "add"
        merged = [reader.add(operations.Binary(function, False), [y, z], reader.name)]
        if layer.merge_mode == "ave":
            mean = operations.Activation("affine", 0.5, 0.0)
            merged = [reader.add(mean, merged, reader.name)]
    outputs = merged + y_states + z_states
    return outputs if len(outputs) > 1 else outputs[0]


@converts(layers.TimeDistributed)
def _time_distributed(layer, reader, inputs, training=None, mask=None):
    inner, parts = layer.layer, layer._flatten_layers()
    only(mask is None or not inner._call_has_mask_arg, "a mask for each step")
    only(
        not any(getattr(part, "stateful", False) for part in parts),
        "a state that outlives the call",
    )
    # Other activations may name an axis, so they get steps.
    if type(inner) is layers.Dense and _is_of_keras(inner.activation):
        return reader.apply(inner, inputs)
    length = len(reader.graph.nodes)
    joined = reader.add(operations.JoinTime(), [inputs], reader.name)
    joined = reader.symbol(joined.value, (None, *inputs.shape[2:]), inputs.dtype)
    y = reader.apply(inner, joined)
    only(isinstance(y, reader.symbol), "several outputs")
    within = [node.operation for node in reader.graph.nodes[length:]]
    only(all(map(_keeps_examples_apart, within)), "a layer that may combine examples")
    is_vector = any(map(_may_give_vectors, within))
    only(not (is_vector and any(isinstance(op, operations.Softmax) for op in within)), "vectors")
    return reader.add(operations.SplitTime(), [y, inputs], reader.name)


def _keeps_examples_apart(operation):
    """Whether each example of the result depends on the same example of the inputs alone."""
    if isinstance(operation, KerasCall):
        return not operation.training and _is_apart_in_keras(operation.function)
    if isinstance(operation, operations.Reduce):
        return 0 not in operation.axes
    if isinstance(operation, operations.Einsum):
        labels = operation.x_labels, operation.y_labels, operation.out_labels
        return len({label[:1] for label in labels}) == 1
    if isinstance(operation, operations.Constant):  # it may hold numbers for each example
        return operation.value.shape[:1] in ((), (1,))
    return True


def _is_apart_in_keras(function):
    """Whether a function that runs in Keras is certain to keep examples apart."""
    if isinstance(function, FunctionCall):
        return _is_of_keras(function.function)
    return isinstance(function, layers.Layer) and all(
        type(part).__module__.startswith(_APART)
        and not isinstance(part, layers.Lambda | layers.EinsumDense)
        and _is_of_keras(getattr(part, "activation", None))
        and _is_of_keras(getattr(part, "recurrent_activation", None))
        for part in function._flatten_layers()
    )


def _is_of_keras(activation):
    """Whether an activation is None or a function of Keras, which knows no axis but the last."""
    if isinstance(activation, layers.Layer):
        return False
    return activation is None or getattr(activation, "__module__", "").startswith("keras.src.")


def _may_give_vectors(operation):
    """Whether the result may have no axis but that of the batch, which then is the last one."""
    if isinstance(operation, operations.Reduce):
        return not operation.keepdims
    return isinstance(operation, operations.Reshape) and not operation.shape


# Layers whose arguments cannot name the batch axis.
_APART = tuple(
    f"keras.src.layers.{kind}."
    for kind in ("attention", "convolutional", "core", "pooling", "reshaping", "rnn")
)
