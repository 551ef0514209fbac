"""Lists a program, one instruction per line, for debugging."""

import dataclasses

from keras_trim.inference.kernels.instructions import INSTRUCTIONS
from keras_trim.inference.program.program import HostStep


@dataclasses.dataclass(frozen=True)
class Line:
    """One instruction of a program, or one step in Python.

    Args:
        row: Integer. The row in the program's table; None for a step in Python.
        layer: String. The layer that it belongs to.
        instruction: String. Its name; "python" for a step in Python.
        operands: Dictionary, name -> integer, list of integers, or float.
        is_task: Boolean. Whether one thread runs it alone, as part of a task.
    """

    row: int | None
    layer: str
    instruction: str
    operands: dict
    is_task: bool = False

    def __str__(self):
        row = "" if self.row is None else self.row
        operands = " ".join(f"{name}={_format(value)}" for name, value in self.operands.items())
        return f"{row:>5} {'| ' * self.is_task}{self.instruction} {operands}  # {self.layer}"


class ProgramListing(list):
    """The lines of a program in the order they run; `print` it."""

    def __str__(self):
        return "\n".join(map(str, self))


def list_program(program, layers):
    """The lines of a program.

    Args:
        program: `Program`.
        layers: List of strings, the name of each node.

    Returns:
        `ProgramListing`.
    """
    host_nodes, lines = iter(program.host_nodes), ProgramListing()

    def add(row, is_task=False):
        instruction = INSTRUCTIONS[program.table[row, 0]]
        operands = instruction.decode(program.table[row], program.factors[row])
        node = program.nodes[row]
        layer = "input" if node is None else layers[node]
        lines.append(Line(row, layer, instruction.name, operands, is_task))

    for row in range(*program.taking):
        add(row)
    for step in program.steps:
        if isinstance(step, HostStep):
            shapes = {
                name: [list(x.shape) for x in tensors]
                for name, tensors in (("inputs", step.inputs), ("outputs", step.outputs))
            }
            lines.append(Line(None, layers[next(host_nodes)], "python", shapes))
            continue
        for row in range(*step):
            add(row)
            for inner in program.rows_alone(row, row + 1):
                if inner != row:
                    add(inner, is_task=True)
    return lines


def _format(value):
    if isinstance(value, list):
        return "[" + ",".join(map(str, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
