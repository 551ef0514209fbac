"""Maps operations to the functions that lower them."""

from keras_trim.inference.program.tensors import Tensor

_LOWERINGS = {}  # class of an operation -> function


def lowers(cls):
    """Registers a function `(operation, builder, *inputs) -> outputs` for a class of operations.

    The function takes `Tensor`s, appends instructions to the `Builder`, and returns the output
    `Tensor`, or several of them.
    """

    def register(function):
        _LOWERINGS[cls] = function
        return function

    return register


def lower_operation(operation, builder, *inputs, **options):
    """Appends the instructions of an operation; returns its output, or a list of outputs."""
    for cls in type(operation).__mro__:
        if cls in _LOWERINGS:
            return _LOWERINGS[cls](operation, builder, *inputs, **options)
    raise TypeError(f"No function lowers {type(operation).__name__}.")


def lower_node(builder, number, node, values):
    """Appends the instructions of a node.

    Args:
        builder: `Builder`.
        number: Integer, of the node in its graph.
        node: `graph.Node`.
        values: Dictionary, value -> `Tensor`, to which the node's outputs are added.

    Raises:
        ValueError: if the operation does not accept these inputs, or an output is too large.
    """
    builder.node = number
    arguments = [values[value] for value in node.inputs]
    if not node.operation.takes_integers and any(x.dtype == "int32" for x in arguments):
        raise ValueError("an operation on floats is given integers")
    try:
        outputs = lower_operation(node.operation, builder, *arguments)
    except ValueError as error:
        raise ValueError(f"layer '{node.name:.100}': {error}") from error
    if isinstance(outputs, Tensor):
        outputs = [outputs]
    if len(outputs) != len(node.outputs):
        raise ValueError("an operation makes another number of values")
    for tensor in outputs:
        builder.require_memory(tensor.size)
    builder.shapes[number] = (arguments[0].shape if arguments else None, outputs[0].shape)
    values.update(zip(node.outputs, outputs, strict=True))
