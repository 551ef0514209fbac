"""A network as data: operations on numbered values, without Keras and without shapes.

The importer makes a graph of a Keras model, `rewrites` simplifies it, `serialization.py` stores it,
and `lowering` turns it into a program for inputs of given shapes.
"""

import dataclasses


@dataclasses.dataclass
class Node:
    """One operation: `outputs = operation(*inputs)`.

    Args:
        operation: `keras_trim.inference.ir.operations.Operation`.
        inputs: List of integers, the values it reads.
        outputs: List of integers, the values it makes.
        name: String. The path of the layer it comes from.
    """

    operation: object
    inputs: list
    outputs: list
    name: str


@dataclasses.dataclass
class Graph:
    """Operations in topological order.

    Args:
        nodes: List of `Node`.
        inputs: List of integers, the input values.
        outputs: List of integers, the output values.
        input_specs: List of dictionaries, one per input: `name`, `shape` (None for free sizes, such
            as the batch), `dtype`.
        output_dtypes: List of strings.
        input_structure, output_structure: The structures that `call` takes and returns, with
            indices into `inputs` and `outputs` in place of tensors.
        num_values: Integer. How many values there are.
    """

    nodes: list = dataclasses.field(default_factory=list)
    inputs: list = dataclasses.field(default_factory=list)
    outputs: list = dataclasses.field(default_factory=list)
    input_specs: list = dataclasses.field(default_factory=list)
    output_dtypes: list = dataclasses.field(default_factory=list)
    input_structure: object = 0
    output_structure: object = 0
    num_values: int = 0

    def new_value(self):
        self.num_values += 1
        return self.num_values - 1

    def add(self, operation, inputs, name, num_outputs=1):
        """Appends a node; returns the list of its outputs."""
        node = Node(operation, list(inputs), [self.new_value() for _ in range(num_outputs)], name)
        self.nodes.append(node)
        return node.outputs

    def producers(self):
        """Value -> the node that makes it."""
        return {value: node for node in self.nodes for value in node.outputs}

    def uses(self):
        """Value -> the nodes that read it, once per use; None stands for a graph output."""
        uses = {}
        for node in self.nodes:
            for value in node.inputs:
                uses.setdefault(value, []).append(node)
        for value in self.outputs:
            uses.setdefault(value, []).append(None)
        return uses
