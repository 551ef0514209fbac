"""Writes the graph. Its values are symbols with shapes and dtypes."""

import dataclasses

import keras
from keras import layers, tree

from keras_trim.inference.frontend.converters.registry import only
from keras_trim.inference.frontend.keras_call import FunctionCall, KerasCall, Slot
from keras_trim.inference.frontend.model_structure import (
    dtype_of_backend,
    is_of_keras,
    with_known_sizes,
)
from keras_trim.inference.frontend.structures import map_in_order
from keras_trim.inference.ir import operations
from keras_trim.inference.ir.dtypes import is_float, is_number
from keras_trim.inference.ir.graph import Graph


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A value of the graph during import: its number, and its shape and dtype in Keras."""

    value: int
    shape: tuple
    dtype: str
    mask: object = None  # another `Symbol`

    def with_mask(self, mask):
        return dataclasses.replace(self, mask=mask)


class GraphWriter:
    """Adds operations to a graph, for converters.

    Attributes:
        graph: The `Graph` under construction.
        name: String, the path of the layer being converted.
        training: Bool or `None`: the default `training` of the next layer.
        unmasked: Set of values whose masks were deleted.
    """

    symbol = Symbol

    def __init__(self):
        self.graph = Graph()
        self.name = ""
        self.training = None
        self.unmasked = set()

    def add(self, operation, inputs, name):
        """Adds an operation with one output.

        The symbol's shape is exact only where converters need it. The importer takes the final
        shape from Keras after it has converted the layer.

        Raises:
            Unsupported: if an input is a constant array, of which most converters know nothing.
        """
        only(all(isinstance(x, Symbol) for x in inputs), "an array as input")
        if not (operation.takes_integers and len({is_float(x.dtype) for x in inputs}) == 1):
            inputs = [x if is_float(x.dtype) else self.cast(x, "float32") for x in inputs]
        (value,) = self.graph.add(operation, [x.value for x in inputs], name)
        dtype = operation.output_dtype or inputs[0].dtype
        return Symbol(value, self._shape_after(operation, inputs), dtype)

    def cast(self, x, dtype):
        """Converts x to another dtype. Floats need no operation: all are float32 in the engine."""
        if is_float(x.dtype) and is_float(dtype):
            return dataclasses.replace(x, dtype=dtype)
        (value,) = self.graph.add(operations.Cast(dtype), [x.value], self.name)
        return Symbol(value, x.shape, dtype)

    def note_indices(self, x, length):
        """Notes that a value holds indices of a table, so that inputs beyond it are an error.

        They are one on TensorFlow and PyTorch. JAX returns NaN for them, as the engine does.
        """
        if keras.backend.backend() == "jax" or x.value not in self.graph.inputs:
            return
        spec = self.graph.input_specs[self.graph.inputs.index(x.value)]
        spec["table_length"] = min(length, spec.get("table_length", length))

    def add_constant(self, array):
        """Adds a constant array, float32 or int32."""
        (value,) = self.graph.add(operations.Constant(array), [], self.name)
        return Symbol(value, array.shape, str(array.dtype))

    def add_all(self, operation, inputs, name, shapes):
        """Adds an operation with outputs of the given shapes; returns a list of symbols."""
        values = self.graph.add(operation, [x.value for x in inputs], name, len(shapes))
        return [
            Symbol(value, shape, inputs[0].dtype)
            for value, shape in zip(values, shapes, strict=True)
        ]

    def keras_call(self, function, args, kwargs, name, hands_on_masks=False):
        """Adds a call to Keras; returns the symbols of its outputs.

        Args:
            hands_on_masks: Bool. Whether outputs get the masks that Keras attaches to them.
        """
        call, inputs = self._call_of(function, args, kwargs)
        shapes = [x.shape for x in inputs]
        specs = call.specs(shapes)
        if isinstance(function, layers.Layer) and any(map(_is_array, tree.flatten((args, kwargs)))):
            # As of a learned query: Keras declares its batch of 1, but it is repeated.
            sizes = {shape[0] for shape in shapes} | {
                y.shape[0] for y in _tensors(specs) if y.shape
            }
            only(len(sizes) == 1, "the batch of an array")
        masks, deleted = call.masks_after(shapes) if hands_on_masks else ([], [])
        self.unmasked |= {inputs[i].value for i in deleted}
        call.mask_outputs = tuple(
            i for i, mask in enumerate(masks) if isinstance(mask, keras.KerasTensor)
        )
        count = len(_tensors(specs)) + len(call.mask_outputs)
        values = iter(())
        if count:  # `compute_mask` may return only None
            values = iter(self.graph.add(call, [x.value for x in inputs], name, count))
        outputs = map_in_order(
            lambda spec: None if spec is None else self.new_symbol(next(values), spec), specs
        )
        for i in call.mask_outputs:
            masks[i] = self.new_symbol(next(values), masks[i])
        return _with_masks(outputs, [inputs[m] if isinstance(m, int) else m for m in masks])

    def carried_masks(self, operation, args, kwargs, outputs):
        """The outputs of a converted operation with the masks that its inputs hand on in Keras."""
        call, inputs = self._call_of(operation, args, kwargs)
        masks, _ = call.masks_after([x.shape for x in inputs])
        return _with_masks(outputs, [inputs[m] if isinstance(m, int) else None for m in masks])

    def _call_of(self, function, args, kwargs):
        """Returns a `KerasCall` and the symbols of its inputs."""
        if not isinstance(function, keras.Operation):
            function = FunctionCall(function)
        if not isinstance(function, layers.Layer):
            function = with_known_sizes(function)
        inputs = [x for x in tree.flatten((args, kwargs)) if isinstance(x, Symbol)]
        numbers = iter(range(len(inputs)))
        args, kwargs = map_in_order(
            lambda x: Slot(next(numbers)) if isinstance(x, Symbol) else x, (args, kwargs)
        )
        # Attention layers look for masks on their inputs.
        masks = {number: x.mask for number, x in enumerate(inputs) if x.mask is not None}
        inputs += masks.values()
        masks = dict(zip(masks, range(len(inputs) - len(masks), len(inputs)), strict=True))
        training = self.training if isinstance(function, layers.Layer) else None
        dtypes = tuple(x.dtype for x in inputs)
        return KerasCall(function, args, kwargs, dtypes, masks, training), inputs

    def keeps_examples_apart(self, x):
        """Whether the first axis of a value is certain to be the batch."""
        producers, waiting = self.graph.producers(), [x.value]
        while waiting:
            node = producers.get(waiting.pop())
            if node is None:
                continue
            if isinstance(node.operation, KerasCall):
                # A Keras operation without a converter may mix examples.
                function = node.operation.function
                if not (isinstance(function, layers.Layer) and is_of_keras(function)):
                    return False
            waiting += node.inputs
        return True

    def move_channels_last(self, x):
        return self._moved(x, (0, *range(2, len(x.shape)), 1))

    def move_channels_first(self, x):
        return self._moved(x, (0, len(x.shape) - 1, *range(1, len(x.shape) - 1)))

    def _moved(self, x, axes):
        return self.add(operations.Permute(axes), [x], self.name)

    def new_symbol(self, value, spec):
        """The `Symbol` of a value, with the shape and dtype of a Keras tensor."""
        dtype = dtype_of_backend(spec.dtype)
        only(spec.shape and is_number(dtype), f"a tensor of shape {spec.shape}, {dtype}")
        return Symbol(value, tuple(spec.shape), dtype)

    def _shape_after(self, operation, inputs):
        shape = inputs[0].shape
        if isinstance(operation, operations.Permute):
            return tuple(shape[axis] for axis in operation.axes)
        if isinstance(operation, operations.Dense):
            return (*shape[:-1], operation.kernel.shape[1])
        if isinstance(operation, operations.Reshape):
            return (shape[0], *(None if n == -1 else n for n in operation.shape))
        if isinstance(operation, operations.Slice):
            parts = zip(shape, operation.begins, operation.ends, operation.steps, strict=True)
            return tuple(n and len(range(*slice(*part).indices(n))) for n, *part in parts)
        return shape


def _is_array(x):
    return not isinstance(x, Symbol) and len(getattr(x, "shape", ())) > 0


def _tensors(specs):
    return [spec for spec in tree.flatten(specs) if spec is not None]


def _with_masks(outputs, masks):
    """The outputs, each with its mask; those after the last mask have none."""
    masks = iter(masks)
    return map_in_order(
        lambda y: y if y is None or (m := next(masks, None)) is None else y.with_mask(m), outputs
    )
