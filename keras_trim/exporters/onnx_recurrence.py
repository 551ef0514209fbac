"""Recurrent layers as ONNX loops, for any number of steps.

While PyTorch's exporter traces, the loop of a recurrent layer is a single operation, a placeholder
that takes steps, states and a mask. Afterwards, `inline` replaces it in the file by ONNX's LSTM,
GRU or RNN, or for other cells by a Scan.

ONNX's own operations support rows that end early, but not arbitrary masks. So unmasked steps move
to the front, in order, and the outputs move back. At a masked step, Keras outputs the previous
output again, or zeros.
"""

import contextlib
import dataclasses

import keras
import numpy as np
from keras import layers

from keras_trim.exporters import onnx_scan

_DOMAIN = "keras_trim"
_ACTIVATIONS = {"tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu"}
_CELLS = {layers.LSTMCell: "LSTM", layers.GRUCell: "GRU", layers.SimpleRNNCell: "RNN"}


@dataclasses.dataclass(frozen=True)
class Loop:
    """The loop that a placeholder stands for.

    Args:
        kind: String. `"LSTM"`, `"GRU"`, `"RNN"`, or `"Scan"`.
        cell: Keras cell.
        shapes: Lists of the sizes of one step and of each state, with `None` for free sizes.
        states: The structure of the cell's states.
        zeros: Bool. Whether the output of a masked step is zero (Scan only).
    """

    kind: str
    cell: object
    shapes: tuple = ()
    states: object = None
    zeros: bool = False


@contextlib.contextmanager
def as_loops():
    """Makes recurrent layers leave placeholders, and yields the list of their `Loop`s."""
    loops = []

    def inner_loop(layer, sequences, initial_state, mask, training=False):
        if _kind(layer.cell) == "Scan":
            return _scan(layer, sequences, initial_state, mask, loops)
        return _fused(layer, sequences, initial_state, mask, loops)

    originals = [(cls, cls.inner_loop) for cls in (layers.RNN, layers.LSTM, layers.GRU)]
    for cls, _ in originals:
        cls.inner_loop = inner_loop
    try:
        yield loops
    finally:
        for cls, function in originals:
            cls.inner_loop = function


def _kind(cell):
    kind = _CELLS.get(type(cell))
    functions = [cell.activation] if kind else []
    functions += [cell.recurrent_activation] if kind in ("LSTM", "GRU") else []
    return kind if kind and all(map(_activation, functions)) else "Scan"


def _activation(function):
    name = getattr(function, "__name__", None)
    is_kerass = name in _ACTIVATIONS and function is getattr(keras.activations, name)
    return _ACTIVATIONS[name] if is_kerass else None


def _placeholder(loops, loop, inputs, shapes):
    import torch

    loops.append(loop)
    return torch.onnx.ops.symbolic_multi_out(
        f"{_DOMAIN}::Loop",
        inputs,
        {"loop": len(loops) - 1},
        dtypes=[torch.float32] * len(shapes),
        shapes=shapes,
        version=1,
    )


def _in_time(layer, sequences, mask):
    """Returns steps and mask with time as the first axis, in the order they are read."""
    import torch

    steps = sequences.transpose(0, 1).to(torch.float32)
    if mask is not None:
        mask = mask.to(torch.bool).reshape(mask.shape[0], mask.shape[1]).transpose(0, 1)
    if layer.go_backwards:
        steps = torch.flip(steps, [0])
        mask = None if mask is None else torch.flip(mask, [0])
    return steps, mask


def _fused(layer, sequences, initial_state, mask, loops):
    """Adds a placeholder for an LSTM, GRU or RNN of ONNX."""
    import torch

    steps, mask = _in_time(layer, sequences, mask)
    states = [state.unsqueeze(0) for state in initial_state]
    lengths = None
    if mask is not None:
        times = torch.arange(mask.shape[0], device=mask.device).unsqueeze(1)
        order = torch.argsort(torch.where(mask, times, times + mask.shape[0]), dim=0)
        steps = torch.gather(steps, 0, order.unsqueeze(-1).expand(steps.shape))
        lengths = mask.to(torch.int32).sum(0, dtype=torch.int32)
    shape = (steps.shape[0], 1, *initial_state[0].shape)
    loop = Loop(_kind(layer.cell), layer.cell)
    outputs, *states = _placeholder(
        loops, loop, [steps, lengths, *states], [shape, *(state.shape for state in states)]
    )
    outputs, states = outputs.squeeze(1), [state.squeeze(0) for state in states]
    if mask is None:
        return states[0], outputs.transpose(0, 1), states
    place = torch.cumsum(mask.to(torch.int64), 0) - 1
    shown = mask if layer.zero_output_for_mask else place >= 0
    place = place.clamp(min=0).unsqueeze(-1).expand(outputs.shape)
    outputs = torch.where(shown.unsqueeze(-1), torch.gather(outputs, 0, place), 0.0)
    begun = (lengths > 0).unsqueeze(-1)
    states = [torch.where(begun, *pair) for pair in zip(states, initial_state, strict=True)]
    return outputs[-1], outputs.transpose(0, 1), states


def _scan(layer, sequences, initial_state, mask, loops):
    """Adds a placeholder for a Scan over any cell."""
    steps, mask = _in_time(layer, sequences, mask)
    states = keras.tree.flatten(initial_state)
    # Only the shape of this output matters. The exporter drops it, since nothing reads its values.
    output, _ = layer.cell(steps[0], initial_state)
    loop = Loop(
        "Scan",
        layer.cell,
        tuple(_sizes(tensor) for tensor in (steps[0], *states)),
        keras.tree.map_structure(lambda _: None, initial_state),
        bool(layer.zero_output_for_mask),
    )
    inputs = [*states, output * 0.0, steps] if mask is not None else [*states, steps]
    inputs += [mask] if mask is not None else []
    shapes = [state.shape for state in states]
    shapes += [output.shape] if mask is not None else []
    found = _placeholder(loops, loop, inputs, [*shapes, (steps.shape[0], *output.shape)])
    final, outputs = found[: len(states)], found[-1]
    final = keras.tree.pack_sequence_as(initial_state, list(final))
    return outputs[-1], outputs.transpose(0, 1), final


def _sizes(tensor):
    return [size if isinstance(size, int) else None for size in tensor.shape]


def inline(proto, loops):
    """Replaces the placeholders of a file by loops.

    Args:
        proto: ONNX `ModelProto`, modified in place.
        loops: List of `Loop`.

    Returns:
        `proto`.
    """
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        if node.domain == _DOMAIN:
            number = node.attribute[0].i
            loop = loops[number]
            if loop.kind == "Scan":
                node = onnx_scan.make_node(loop, node, f"loop_{number}")
            else:
                node = _fused_node(loop, node, proto.graph, f"loop_{number}")
        proto.graph.node.append(node)
    for imported in [each for each in proto.opset_import if each.domain == _DOMAIN]:
        proto.opset_import.remove(imported)
    return proto


def _fused_node(loop, node, graph, name):
    from onnx import helper, numpy_helper

    cell = loop.cell
    weights = dict(zip(("W", "R", "B"), _weights(loop.kind, cell), strict=True))
    for part, values in weights.items():
        values = np.ascontiguousarray(values[None], np.float32)
        graph.initializer.append(numpy_helper.from_array(values, f"{name}_{part}"))
    functions = [cell.activation]
    if loop.kind == "GRU":
        functions = [cell.recurrent_activation, cell.activation]
    elif loop.kind == "LSTM":
        functions = [cell.recurrent_activation, cell.activation, cell.activation]
    attributes = {"hidden_size": cell.units, "activations": list(map(_activation, functions))}
    if loop.kind == "GRU":
        attributes["linear_before_reset"] = int(cell.reset_after)
    steps, lengths, *states = node.input
    inputs = [steps, *(f"{name}_{part}" for part in weights), lengths, *states]
    return helper.make_node(loop.kind, inputs, list(node.output), name=name, **attributes)


def _weights(kind, cell):
    """Returns kernels (gates * units, inputs) and biases (2 * gates * units), in ONNX's order."""
    read = keras.ops.convert_to_numpy
    kernel, recurrent = read(cell.kernel).T, read(cell.recurrent_kernel).T
    size = len(kernel)
    bias = read(cell.bias).reshape(-1, size) if cell.bias is not None else np.zeros((1, size))
    biases = [bias[0], bias[1] if len(bias) > 1 else np.zeros(size)]
    order = {"LSTM": (0, 3, 1, 2), "GRU": (0, 1, 2), "RNN": (0,)}[kind]  # Keras: i f c o; z r h

    def ordered(values):
        gates = np.split(values, len(order))
        return np.concatenate([gates[gate] for gate in order])

    return ordered(kernel), ordered(recurrent), np.concatenate(list(map(ordered, biases)))
