"""From a Keras model to a graph of the engine's operations."""

import dataclasses
import inspect

import keras
from keras import layers, tree

from keras_trim.inference.frontend.converters import Unsupported, find_converter
from keras_trim.inference.frontend.converters.registry import only
from keras_trim.inference.frontend.keras_call import (
    FunctionCall,
    KerasCall,
    Slot,
    output_specs,
)
from keras_trim.inference.frontend.mask_propagation import output_masks, with_masks
from keras_trim.inference.frontend.model_structure import (
    dtype_of_backend,
    fits,
    function_of,
    hides_its_calls,
    is_graph,
    is_of_keras,
    numbered,
    unpacked,
    with_known_sizes,
)
from keras_trim.inference.frontend.tracing import Trace, Untraceable, trace
from keras_trim.inference.ir import operations
from keras_trim.inference.ir.dtypes import is_float, is_number
from keras_trim.inference.ir.graph import Graph


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A value of the graph while it is read: its number, and what Keras says of it."""

    value: int
    shape: tuple
    dtype: str
    mask: object = None  # another `Symbol`

    def with_mask(self, mask):
        return dataclasses.replace(self, mask=mask)


def import_model(model, absent=(), owners=None):
    """Reads a model.

    Args:
        model: Keras model, built. Sequential and Functional models, nested to any depth, become
            operations; so do the layers that any other model calls, if `call` can be traced. What
            cannot be converted runs in Keras.
        absent: Numbers of the optional inputs that are None.
        owners: Dictionary that gets, for each name of a node, the innermost layer it comes from.

    Returns:
        `Graph`. Without the absent inputs, it takes a list of the others.

    Raises:
        ValueError: if the model is not built.
        Exception: whatever layers raise that cannot do without the absent inputs.
    """
    return _Importer(model, absent, {} if owners is None else owners).read(model)


def optional_inputs(model):
    """Numbers of the inputs of a model that may be None."""
    if not is_graph(model):
        return []
    tensors = enumerate(tree.flatten(function_of(model)[1]))
    layer_of = {i: getattr(x._keras_history.operation, "optional", False) for i, x in tensors}
    return [i for i, is_optional in layer_of.items() if is_optional]


class _Importer:
    symbol = Symbol

    def __init__(self, model, absent, owners):
        self.graph = Graph()
        self._owners, self._owner = owners, model
        self.name = ""  # of the layer that is being converted
        self._absent = absent
        self._specs = None  # what Keras says of its outputs
        self._prefix = ()
        # What Keras calls the next layer with unless it is told.
        self._training = None
        self._is_unforeseen = False  # whether a layer changed it that hides this from a trace

    def read(self, model):
        function, inputs = function_of(model)
        self._training = False if model._call_has_training_arg else None  # as `predict` begins
        symbols = []
        for number, tensor in enumerate(tree.flatten(inputs)):
            if number in self._absent:
                symbols.append(None)
                continue
            if not is_number(tensor.dtype):
                raise ValueError(
                    "The inputs of a model must be real numbers. "
                    f"Received: model={model.name}, with an input of dtype {tensor.dtype}"
                )
            symbols.append(self._symbol(self.graph.new_value(), tensor))
            name = getattr(tensor, "name", None) or f"input_{number}"
            self.graph.input_specs.append(
                {"name": name, "shape": tuple(tensor.shape), "dtype": symbols[-1].dtype}
            )
        self.graph.inputs = [symbol.value for symbol in symbols if symbol is not None]
        if not self.graph.inputs:
            raise ValueError(f"A model needs an input. Received: model={model.name}")
        outputs = self._outputs(model, function, tree.pack_sequence_as(inputs, symbols))
        self.graph.input_structure = numbered(inputs)
        if self._absent:
            self.graph.input_structure = [*range(len(self.graph.inputs))]
        self.graph.output_structure = numbered(outputs)
        flat = tree.flatten(outputs)
        self.graph.outputs = [symbol.value for symbol in flat]
        self.graph.output_dtypes = [symbol.dtype for symbol in flat]
        return self.graph

    def _outputs(self, model, function, inputs):
        training = self._training
        if function is not None:
            try:
                if isinstance(function, Trace):
                    return self._traced(function, tree.flatten(inputs))
                return unpacked(self._run(function, tree.flatten(inputs)))
            except (Unsupported, Untraceable):  # such as complex numbers between two layers
                self.graph.nodes.clear()
        self._training = training
        try:
            return self.keras_call(model, (inputs,), {}, model.name)
        except Unsupported as error:
            raise ValueError(
                "The outputs of a model must be arrays of real numbers, whose first axis is that "
                f"of the batch. Received: model={model.name}, with {error}"
            ) from None

    def _symbol(self, value, spec):
        dtype = dtype_of_backend(spec.dtype)
        only(spec.shape and is_number(dtype), f"a tensor of shape {spec.shape}, {dtype}")
        return Symbol(value, tuple(spec.shape), dtype)

    def _run(self, function, symbols, training=None):
        """Reads what a `keras.Function` does.

        Args:
            training: Dictionary of a `Trace`; by default what Keras runs the graph of a model with.
        """
        known = self._training
        values = dict(zip(map(id, function.inputs), symbols, strict=True))
        for depth in sorted(function._nodes_by_depth, reverse=True):
            for node in function._nodes_by_depth[depth]:
                is_ready = all(id(x) in values for x in node.input_tensors)
                if node.is_input or not is_ready:
                    continue
                args, kwargs = node.arguments.fill_in(values)
                if isinstance(node.operation, layers.Layer):
                    if training is not None:
                        kwargs = {**kwargs, "training": training.get(id(node))}
                    elif known is not None:
                        kwargs = {**kwargs, "training": known}
                outputs = self._read(node.operation, args, kwargs)
                values |= zip(map(id, node.outputs), tree.flatten(outputs), strict=True)
        outputs = [values[id(x)] for x in function.outputs]
        return tree.pack_sequence_as(function._outputs_struct, outputs)

    def _read(self, operation, args, kwargs):
        if isinstance(operation, layers.Layer):
            args, kwargs = self._note_training(operation, args, kwargs)
        if is_graph(operation):
            function, _ = function_of(operation)
            options = [key for key, value in kwargs.items() if value is not None]
            if len(args) == 1 and not options and fits(function, args[0]):
                training = self._training
                outputs = self._inlined(operation.name, function, tree.flatten(args[0]))
                # Keras knows what a graph gives, so a trace of what is around has not called it.
                self._is_unforeseen |= self._training != training
                return outputs
        return self.call(operation, *args, **kwargs)

    def _note_training(self, layer, args, kwargs):
        """Arguments without `training`, which becomes that of all within and, as in Keras, behind.

        A layer is called with what it is told, else as the one around or before it was, else with
        the default of its own.
        """
        kwargs = dict(kwargs)
        if is_graph(layer) and len(args) == 2:
            args, kwargs["training"] = args[:1], args[1]
        if "training" in kwargs:
            self._training = kwargs.pop("training")
        elif self._training is None and layer._call_has_training_arg:
            self._training = inspect.signature(layer.call).parameters["training"].default
        return args, kwargs

    def _inlined(self, name, function, symbols):
        self._prefix = (*self._prefix, name)
        try:
            return self._run(function, symbols)
        finally:
            self._prefix = self._prefix[:-1]

    def call(self, operation, *args, **kwargs):
        """Converts one layer or operation; returns the `Symbol`s of its outputs."""
        outer = self.name, self._specs, self._owner
        self.name = "/".join((*self._prefix, operation.name))
        if isinstance(operation, layers.Layer):
            self._owner = operation
        self._owners[self.name] = self._owner
        try:
            return self._convert(operation, args, kwargs)
        finally:
            self.name, self._specs, self._owner = outer

    def _convert(self, operation, args, kwargs):
        kwargs = {
            key: value
            for key, value in kwargs.items()
            if not (key.endswith("mask") and value is None)
        }
        kwargs = with_masks(operation, args, kwargs)
        if getattr(operation, "_call_has_training_arg", False) and self._training:
            kwargs["training"] = self._training
        return output_masks(self, operation, args, self._converted(operation, args, kwargs))

    def _converted(self, operation, args, kwargs):
        training = self._training
        for attempt in (self._by_converter, self._by_trace):
            length = len(self.graph.nodes)
            try:
                return self._as_specified(attempt(operation, args, kwargs), operation, args, kwargs)
            except (Unsupported, Untraceable):
                del self.graph.nodes[length:]
                self._training = training
        return self.keras_call(operation, args, kwargs, self.name)

    def _by_converter(self, operation, args, kwargs):
        converter = find_converter(operation)
        if converter is None:
            raise Unsupported("no converter")
        try:
            inspect.signature(converter).bind(operation, self, *args, **kwargs)
        except TypeError as error:  # such as a mask
            raise Unsupported("its arguments") from error
        return converter(operation, self, *args, **kwargs)

    def _traced(self, traced, symbols):
        outer, self._is_unforeseen = self._is_unforeseen, False
        try:
            outputs = self._run(traced.function, symbols, traced.training)
            if self._is_unforeseen and not traced.is_bare:
                raise Untraceable("a layer within decides how those behind it are called")
        finally:
            self._is_unforeseen = outer
        self._training = traced.last_training
        return outputs

    def _by_trace(self, layer, args, kwargs):
        symbols = [x for x in tree.flatten((args, kwargs)) if isinstance(x, Symbol)]
        is_masked = any(x.mask for x in symbols)
        if not isinstance(layer, layers.Layer) or is_masked:
            raise Untraceable
        training = self._training
        kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        traced = trace(layer, *self._as_tensors((args, kwargs)), training)
        prefix, length = self.name.split("/")[len(self._prefix)], len(self.graph.nodes)
        self._prefix = (*self._prefix, prefix)
        try:
            outputs = self._traced(traced, symbols)
        finally:
            self._prefix = self._prefix[:-1]
        if self._training != training and hides_its_calls(layer):
            self._is_unforeseen = True
        calls = any(isinstance(node.operation, KerasCall) for node in self.graph.nodes[length:])
        if calls and is_of_keras(layer):
            # Keras's own layer is faster than, and as right as, its operations one by one.
            raise Untraceable
        return outputs

    def _as_specified(self, outputs, operation, args, kwargs):
        """The outputs with the shapes and dtypes that Keras gives them."""
        args, kwargs = self._as_tensors((args, kwargs))
        specs = output_specs(operation, args, kwargs)
        symbols, flat = tree.flatten(outputs), tree.flatten(specs)
        if len(symbols) != len(flat) or any(
            is_float(x.dtype) != is_float(spec.dtype) for x, spec in zip(symbols, flat, strict=True)
        ):
            raise Unsupported("its dtype")
        return tree.pack_sequence_as(
            specs, [self._symbol(x.value, spec) for x, spec in zip(symbols, flat, strict=True)]
        )

    def _as_tensors(self, structure):
        return tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, x.dtype) if isinstance(x, Symbol) else x, structure
        )

    def add(self, operation, inputs, name):
        """Adds an operation with one output.

        Its shape is told by Keras when the layer is converted; until then it is a guess where
        converters need none.
        """
        if not (operation.takes_integers and len({is_float(x.dtype) for x in inputs}) == 1):
            inputs = [x if is_float(x.dtype) else self.cast(x, "float32") for x in inputs]
        (value,) = self.graph.add(operation, [x.value for x in inputs], name)
        dtype = operation.output_dtype or inputs[0].dtype
        return Symbol(value, self._shape_after(operation, inputs), dtype)

    def cast(self, x, dtype):
        """x as another dtype; floats of any width are float32 within the engine."""
        if is_float(x.dtype) and is_float(dtype):
            return dataclasses.replace(x, dtype=dtype)
        (value,) = self.graph.add(operations.Cast(dtype), [x.value], self.name)
        return Symbol(value, x.shape, dtype)

    def add_constant(self, array):
        """Adds an array, float32 or int32."""
        (value,) = self.graph.add(operations.Constant(array), [], self.name)
        return Symbol(value, array.shape, str(array.dtype))

    def add_all(self, operation, inputs, name, shapes):
        """Adds an operation with several outputs, of `shapes`; returns a list of their symbols."""
        values = self.graph.add(operation, [x.value for x in inputs], name, len(shapes))
        return [
            Symbol(value, shape, inputs[0].dtype)
            for value, shape in zip(values, shapes, strict=True)
        ]

    def apply(self, operation, *args):
        """Converts a layer or model within another; returns the `Symbol`s of its outputs."""
        return self._read(operation, args, {})

    def _shape_after(self, operation, inputs):
        shape = inputs[0].shape
        if isinstance(operation, operations.Permute):
            return tuple(shape[axis] for axis in operation.axes)
        if isinstance(operation, operations.Reshape):
            return (shape[0], *(None if n == -1 else n for n in operation.shape))
        if isinstance(operation, operations.Slice):
            parts = zip(shape, operation.begins, operation.ends, operation.steps, strict=True)
            return tuple(n and len(range(*slice(*part).indices(n))) for n, *part in parts)
        return shape

    def keras_call(self, function, args, kwargs, name):
        """Adds a call of Keras itself."""
        if not isinstance(function, keras.Operation):
            function = FunctionCall(function)
        if not isinstance(function, layers.Layer):
            function = with_known_sizes(function)
        inputs = [x for x in tree.flatten((args, kwargs)) if isinstance(x, Symbol)]
        numbers = iter(range(len(inputs)))
        args, kwargs = tree.map_structure(
            lambda x: Slot(next(numbers)) if isinstance(x, Symbol) else x, (args, kwargs)
        )
        # Attention layers look for masks on their inputs.
        masks = {number: x.mask for number, x in enumerate(inputs) if x.mask is not None}
        inputs += masks.values()
        masks = dict(zip(masks, range(len(inputs) - len(masks), len(inputs)), strict=True))
        training = self._training if isinstance(function, layers.Layer) else None
        call = KerasCall(function, args, kwargs, tuple(x.dtype for x in inputs), masks, training)
        specs = call.specs([x.shape for x in inputs])
        count = sum(spec is not None for spec in tree.flatten(specs))
        values = iter(())
        if count:  # a layer may have no mask to give
            values = iter(self.graph.add(call, [x.value for x in inputs], name, count))
        return tree.map_structure(
            lambda spec: None if spec is None else self._symbol(next(values), spec), specs
        )

    def keeps_examples_apart(self, x):
        """Whether the first axis of a value is surely that of the batch."""
        producers, waiting = self.graph.producers(), [x.value]
        while waiting:
            node = producers.get(waiting.pop())
            if node is None:
                continue
            if isinstance(node.operation, KerasCall):
                # Operations of Keras run by themselves where they mix examples, among others.
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
