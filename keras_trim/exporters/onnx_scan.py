"""An ONNX Scan over a recurrent cell of any kind. Its body is the cell, exported separately."""

import keras

_FREE = 6  # the sample value of a free size


def make_node(loop, node, name):
    """Makes the Scan that replaces a placeholder.

    Args:
        loop: `Loop` of `onnx_recurrence`.
        node: ONNX `NodeProto`, the placeholder. Its inputs are the states, then the output before
            the first step if there is a mask, the steps, and the mask. Its outputs are states and
            outputs.
        name: String. Prefix for the names of inner values.

    Returns:
        ONNX `NodeProto`.
    """
    from onnx import helper

    num_states = len(loop.shapes) - 1
    is_masked = len(node.input) > num_states + 1
    body = _body(loop, is_masked)
    _prefix(body, name)
    outputs = list(node.output)
    return helper.make_node(
        "Scan",
        list(node.input),
        outputs,
        name=name,
        body=body,
        num_scan_inputs=1 + is_masked,
    )


def _body(loop, is_masked):
    """Exports the graph of one step: takes states (and the previous output), then inputs."""
    import torch

    cell, zeros = loop.cell, loop.zeros

    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = cell

        def forward(self, *values):
            states = values[: len(loop.shapes) - 1]
            if not is_masked:
                output, new = self._call(values[-1], states)
                return (*(value.clone() for value in new), output.clone())
            before, step, mask = values[len(states) :]
            output, new = self._call(step, states)
            output = _where(mask, output, before * 0.0 if zeros else before)
            new = [_where(mask, *pair) for pair in zip(new, states, strict=True)]
            return (*new, output, output.clone())

        def _call(self, step, states):
            packed = keras.tree.pack_sequence_as(loop.states, list(states))
            kwargs = {"training": False} if self.cell._call_has_training_arg else {}
            output, new = self.cell(step, packed, **kwargs)
            return output, keras.tree.flatten(new)

    step, *states = loop.shapes
    shapes = [*states, step]
    examples = [torch.zeros([size or _FREE for size in shape]) for shape in shapes]
    if is_masked:
        with torch.no_grad():
            output = Step()._call(examples[-1], examples[:-1])[0]
        sizes = [None, *output.shape[1:]]
        shapes[-1:-1] = [sizes]
        examples[-1:-1] = [torch.zeros(output.shape)]
        shapes.append(step[:1])
        examples.append(torch.ones(len(examples[-1]), dtype=torch.bool))
    dynamic = tuple(
        {axis: torch.export.Dim.AUTO for axis, size in enumerate(shape) if size is None}
        for shape in shapes
    )
    program = torch.onnx.export(
        Step().eval(), tuple(examples), dynamo=True, verbose=False, dynamic_shapes=(dynamic,)
    )
    program.optimize()
    return program.model_proto.graph


def _where(mask, value, other):
    import torch

    return torch.where(mask.reshape(-1, *[1] * (value.dim() - 1)), value, other)


def _prefix(graph, prefix):
    """Makes the names of values in a graph unique by a prefix."""
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            value.name = f"{prefix}_{value.name}"
    for node in graph.node:
        node.name = f"{prefix}_{node.name}"
        for part in (node.input, node.output):
            for i, name in enumerate(part):
                part[i] = f"{prefix}_{name}" if name else ""
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _prefix(attribute.g, prefix)
