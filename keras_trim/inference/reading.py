"""From a Keras model to a graph of the engine's operations."""

import dataclasses

import keras
from keras import layers, tree

from keras_trim.inference import masking, operations
from keras_trim.inference.converters import Unsupported, find_converter
from keras_trim.inference.graph import Graph
from keras_trim.inference.operations.keras_call import KerasCall, Slot


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A value of the graph while it is read: its number, what Keras says of it, and its mask."""

    value: int
    shape: tuple
    dtype: str
    mask: object = None  # a `Symbol`


def read(model):
    """Reads a model.

    Args:
        model: Keras model, built. Sequential and Functional models, nested to any depth, become
            operations; so do the layers that any other model calls, if `call` can be traced. What
            cannot be converted runs in Keras.

    Returns:
        `Graph`.

    Raises:
        ValueError: if the model is not built.
    """
    return _Reader().read(model)


class _Reader:
    symbol = Symbol

    def __init__(self):
        self.graph = Graph()
        self.name = ""  # of the layer that is being converted
        self._specs = None  # what Keras says of its outputs
        self._prefix = ()

    def read(self, model):
        function = _function_of(model)
        inputs = function._inputs_struct
        flat = tree.flatten(inputs)
        symbols = []
        for tensor in flat:
            symbols.append(self._symbol(self.graph.new_value(), tensor))
            self.graph.input_specs.append(
                {"name": tensor.name, "shape": tuple(tensor.shape), "dtype": tensor.dtype}
            )
        self.graph.inputs = [symbol.value for symbol in symbols]
        outputs = self._run(function, symbols)
        self.graph.input_structure = _numbered(inputs)
        self.graph.output_structure = _numbered(outputs)
        flat = tree.flatten(outputs)
        self.graph.outputs = [symbol.value for symbol in flat]
        self.graph.output_dtypes = [symbol.dtype for symbol in flat]
        self._drop_unused()
        return self.graph

    def _drop_unused(self):
        """Removes nodes that nothing depends on, as masks that no layer takes."""
        needed, kept = set(self.graph.outputs), []
        for node in reversed(self.graph.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        self.graph.nodes = kept[::-1]

    def _symbol(self, value, spec):
        return Symbol(value, tuple(spec.shape), spec.dtype)

    def _run(self, function, symbols):
        return function._run_through_graph(symbols, operation_fn=self._caller)

    def _caller(self, operation):
        if _is_graph(operation):
            return lambda *args, **kwargs: self._nested(operation, *args)
        return lambda *args, **kwargs: self.call(operation, *args, **kwargs)

    def _nested(self, model, inputs):
        self._prefix = (*self._prefix, model.name)
        outputs = self._run(_function_of(model), tree.flatten(inputs))
        self._prefix = self._prefix[:-1]
        return outputs

    def call(self, operation, *args, **kwargs):
        """Converts one layer or operation; returns the `Symbol`s of its outputs."""
        outer_name, outer_specs = self.name, self._specs
        self.name = "/".join((*self._prefix, operation.name))
        try:
            return self._convert(operation, args, kwargs)
        finally:
            self.name, self._specs = outer_name, outer_specs

    def _convert(self, operation, args, kwargs):
        kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        converter = find_converter(operation)
        if converter is not None:
            length = len(self.graph.nodes)
            try:
                mask = masking.argument(operation, converter, args, kwargs)
                y = converter(operation, self, *args, **{**kwargs, **mask})
                y = self._with_specs(y, self._spec(operation, args, kwargs))
                return masking.carried_on(operation, y, args, kwargs)
            except Unsupported:
                del self.graph.nodes[length:]
        return self.keras_call(operation, args, kwargs, self.name)

    def _with_specs(self, outputs, specs):
        """The symbols of a layer's outputs in its structure, with the shapes Keras gives."""
        symbols = [
            dataclasses.replace(symbol, shape=tuple(spec.shape), dtype=spec.dtype)
            for symbol, spec in zip(tree.flatten(outputs), tree.flatten(specs), strict=True)
        ]
        return tree.pack_sequence_as(specs, symbols)

    def _spec(self, operation, args, kwargs):
        args, kwargs = tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, x.dtype) if isinstance(x, Symbol) else x,
            (args, kwargs),
        )
        return operation.compute_output_spec(*args, **kwargs)

    def add(self, operation, inputs, name):
        """Adds an operation with one output.

        Its shape is the input's until the layer is converted, when Keras tells the true one.
        """
        (value,) = self.graph.add(operation, [x.value for x in inputs], name)
        return Symbol(value, self._shape_after(operation, inputs), inputs[0].dtype)

    def add_all(self, operation, inputs, name, shapes):
        """Adds an operation with outputs of the given shapes; returns a list of them."""
        values = self.graph.add(operation, [x.value for x in inputs], name, len(shapes))
        return [
            Symbol(value, shape, inputs[0].dtype)
            for value, shape in zip(values, shapes, strict=True)
        ]

    def apply(self, operation, *args):
        """Converts a layer or model within another; returns the `Symbol`s of its outputs."""
        return self._caller(operation)(*args)

    def _shape_after(self, operation, inputs):
        if isinstance(operation, operations.Permute):
            return tuple(inputs[0].shape[axis] for axis in operation.axes)
        if isinstance(operation, operations.Reshape):
            return (inputs[0].shape[0], *(None if n == -1 else n for n in operation.shape))
        return inputs[0].shape

    def keras_call(self, function, args, kwargs, name):
        """Adds a call of Keras itself."""
        if not isinstance(function, keras.Operation):
            function = layers.Activation(function)
        inputs = [x for x in tree.flatten((args, kwargs)) if isinstance(x, Symbol)]
        numbers = iter(range(len(inputs)))
        args, kwargs = tree.map_structure(
            lambda x: Slot(next(numbers)) if isinstance(x, Symbol) else x, (args, kwargs)
        )
        if isinstance(function, layers.Layer) and function._call_has_training_arg:
            kwargs = {**kwargs, "training": False}
        masked = [i for i, x in enumerate(inputs) if x.mask is not None]
        masks = {i: len(inputs) + number for number, i in enumerate(masked)}
        inputs += [inputs[i].mask for i in masked]
        call = KerasCall(function, args, kwargs, tuple(x.dtype for x in inputs), masks)
        specs, mask_specs = call.specs([x.shape for x in inputs])
        flat = tree.flatten(specs)
        present = [spec for spec in mask_specs if spec is not None]
        values = self.graph.add(
            call, [x.value for x in inputs], name, num_outputs=len(flat) + len(present)
        )
        numbers = iter(values[len(flat) :])
        symbols = []
        for value, spec, mask in zip(values, flat, mask_specs, strict=False):
            mask = None if mask is None else self._symbol(next(numbers), mask)
            symbols.append(dataclasses.replace(self._symbol(value, spec), mask=mask))
        return tree.pack_sequence_as(specs, symbols)

    def move_channels_last(self, x):
        return self._moved(x, (0, *range(2, len(x.shape)), 1))

    def move_channels_first(self, x):
        return self._moved(x, (0, len(x.shape) - 1, *range(1, len(x.shape) - 1)))

    def _moved(self, x, axes):
        return self.add(operations.Permute(axes), [x], self.name)


def _numbered(structure):
    """The structure with the position of each leaf in its place."""
    numbers = iter(range(len(tree.flatten(structure))))
    return tree.map_structure(lambda _: next(numbers), structure)


def _is_graph(operation):
    # Keras does not export the class of functional models; they have `operations`.
    return isinstance(operation, keras.Sequential) or (
        isinstance(operation, keras.Model)
        and hasattr(operation, "operations")
        and hasattr(operation, "_run_through_graph")
    )


def _function_of(model):
    """The Keras `Function` that computes a model."""
    if not model.built:
        raise ValueError(
            "The engine reads a model's graph, so the model must be built: give it a "
            f"`keras.Input` or call it once. Received: model={model.name}"
        )
    if isinstance(model, keras.Sequential):
        return model._functional
    if _is_graph(model):
        return model
    return _traced(model)


def _traced(model):
    raise NotImplementedError
