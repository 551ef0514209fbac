"""Converts a Keras model to a graph of the engine's operations."""

import inspect

import keras
from keras import layers, tree

from keras_trim.inference.frontend.converters import Unsupported, find_converter
from keras_trim.inference.frontend.graph_writer import GraphWriter, Symbol
from keras_trim.inference.frontend.keras_call import (
    KerasCall,
    output_specs,
)
from keras_trim.inference.frontend.mask_propagation import (
    hands_on_masks,
    has_masks,
    masked,
    output_masks,
    with_masks,
)
from keras_trim.inference.frontend.model_structure import (
    casts_saturate,
    dtype_of_backend,
    fits,
    function_of,
    hides_its_calls,
    is_graph,
    is_of_keras,
    numbered,
    refuse_own_prediction,
    unpacked,
)
from keras_trim.inference.frontend.trace_contexts import one_thread
from keras_trim.inference.frontend.tracing import Trace, Untraceable, trace
from keras_trim.inference.ir.dtypes import is_float, is_number

_TAKE_MASKS = (layers.Attention, layers.AdditiveAttention, layers.GlobalAveragePooling1D)


def import_model(model, absent=(), owners=None):
    """Converts a model.

    Args:
        model: Keras model, built. Sequential and Functional models, nested to any depth, become
            operations. So do other models, if their `call` can be traced. Layers that cannot be
            converted run in Keras.
        absent: Indices of the optional inputs that are None.
        owners: Dictionary to fill: name of a node -> the innermost layer it comes from.

    Returns:
        `Graph`. If inputs are absent, it takes a list of the others.

    Raises:
        ValueError: if the model is not built.
        Exception: whatever a layer raises that needs an absent input.
    """
    with one_thread():
        return _Importer(model, absent, {} if owners is None else owners).read(model)


class _Importer(GraphWriter):
    def __init__(self, model, absent, owners):
        super().__init__()
        self._owners, self._owner = owners, model
        self._absent = absent
        self._specs = None
        self._prefix = ()
        # Whether a layer changed `training` without a trace around it seeing that.
        self._is_unforeseen = False

    def read(self, model):
        function, inputs = function_of(model)
        refuse_own_prediction(model)
        self.training = False if model._call_has_training_arg else None  # as in `predict`
        symbols = []
        for number, tensor in enumerate(tree.flatten(inputs)):
            if number in self._absent:
                symbols.append(None)
                continue
            if not is_number(tensor.dtype):
                cure = "Make the engine of the layers after those that turn text into numbers. "
                raise ValueError(
                    "The inputs of a model must be real numbers. "
                    f"{cure * (tensor.dtype == 'string')}"
                    f"Received: model={model.name}, with an input of dtype {tensor.dtype}"
                )
            symbols.append(self.new_symbol(self.graph.new_value(), tensor))
            name = getattr(tensor, "name", None) or f"input_{number}"
            dtype = symbols[-1].dtype
            spec = {"name": name, "shape": tuple(tensor.shape), "dtype": dtype}
            if casts_saturate(dtype):
                spec["saturates"] = True
            self.graph.input_specs.append(spec)
        self.graph.inputs = [symbol.value for symbol in symbols if symbol is not None]
        if not self.graph.inputs:
            raise ValueError(f"A model needs an input. Received: model={model.name}")
        outputs = self._outputs(model, function, tree.pack_sequence_as(inputs, symbols))
        self.graph.input_structure = numbered(inputs)
        if self._absent:
            self.graph.input_structure = [*range(len(self.graph.inputs))]
        self.graph.output_structure = numbered(outputs)
        flat = tree.flatten(outputs)
        if None in flat:
            raise _wrong_outputs(model, "one that is None")
        self.graph.outputs = [symbol.value for symbol in flat]
        self.graph.output_dtypes = [symbol.dtype for symbol in flat]
        return self.graph

    def _outputs(self, model, function, inputs):
        training = self.training
        if function is not None:
            try:
                if isinstance(function, Trace):
                    return self._traced(function, tree.flatten(inputs))
                return unpacked(self._run(function, tree.flatten(inputs)))
            except (Unsupported, Untraceable):  # e.g. complex numbers between two layers
                self.graph.nodes.clear()
        self.training = training
        try:
            return self.keras_call(model, (inputs,), {}, model.name)
        except Unsupported as error:
            raise _wrong_outputs(model, error) from None

    def _run(self, function, symbols, training=None):
        """Converts a `keras.Function`.

        Args:
            training: `Trace.training`; by default, all layers get the model's value.
        """
        known = self.training
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
            options = {key for key, value in kwargs.items() if value is not None}
            if len(args) == 1 and options <= {"mask"} and fits(function, args[0]):
                training = self.training
                symbols = masked(tree.flatten(args[0]), kwargs.get("mask"))
                outputs = self._inlined(operation, function, symbols)
                # Keras infers a graph's outputs without calling its layers, so a trace around it
                # has not seen this.
                self._is_unforeseen |= self.training != training
                return outputs
        return self.call(operation, *args, **kwargs)

    def _note_training(self, layer, args, kwargs):
        """Moves `training` from the arguments to `self.training`; returns the other arguments.

        As in Keras, the value also applies to layers inside and after this one. It is the explicit
        argument, else the value of the layer around or before, else the default of `call`.
        """
        kwargs = dict(kwargs)
        if is_graph(layer) and len(args) == 2:
            args, kwargs["training"] = args[:1], args[1]
        if "training" in kwargs:
            self.training = kwargs.pop("training")
        elif self.training is None and layer._call_has_training_arg:
            self.training = inspect.signature(layer.call).parameters["training"].default
        return args, kwargs

    def _inlined(self, model, function, symbols):
        outer, self._prefix = self.name, (*self._prefix, model.name)
        self.name = "/".join(self._prefix)
        self._owners[self.name] = model
        try:
            pairs = zip(symbols, function.inputs, strict=True)
            return self._run(function, [self._as_input(x, spec) for x, spec in pairs])
        finally:
            self.name, self._prefix = outer, self._prefix[:-1]

    def _as_input(self, x, spec):
        """What a nested model's input makes of a tensor: Keras casts it, and keeps its mask."""
        dtype = dtype_of_backend(spec.dtype)
        return x if x is None or x.dtype == dtype else self.cast(x, dtype).with_mask(x.mask)

    def call(self, operation, *args, **kwargs):
        """Converts one layer or operation; returns the `Symbol`s of its outputs."""
        outer = self.name, self._specs, self._owner
        self.name = "/".join((*self._prefix, operation.name))
        if isinstance(operation, layers.Layer):
            self._owner = operation
        self._owners[self.name] = self._owner
        try:
            return self._convert(operation, *self._without_deleted_masks((args, kwargs)))
        finally:
            self.name, self._specs, self._owner = outer

    def _without_deleted_masks(self, structure):
        def changed(x):
            return isinstance(x, Symbol) and x.value in self.unmasked

        return tree.map_structure(lambda x: x.with_mask(None) if changed(x) else x, structure)

    def _convert(self, operation, args, kwargs):
        kwargs = {
            key: value
            for key, value in kwargs.items()
            if not (key.endswith("mask") and value is None)
        }
        kwargs = with_masks(operation, args, kwargs)
        if getattr(operation, "_call_has_training_arg", False) and self.training:
            kwargs["training"] = self.training
        outputs = self._converted(operation, args, kwargs)
        return output_masks(self, operation, args, kwargs, outputs)

    def _converted(self, operation, args, kwargs):
        training = self.training
        for attempt in (self._by_converter, self._by_trace):
            length = len(self.graph.nodes)
            try:
                outputs = attempt(operation, args, kwargs)
                outputs = self._as_specified(outputs, operation, args, kwargs)
            except (Unsupported, Untraceable):
                del self.graph.nodes[length:]
                self.training = training
                continue
            if hands_on_masks(operation, args, kwargs) and not has_masks(outputs):
                return self.carried_masks(operation, args, kwargs, outputs)
            return outputs
        is_composite = isinstance(operation, layers.Layer) and operation._layers
        may_mask = is_composite or hands_on_masks(operation, args, kwargs)
        return self.keras_call(operation, args, kwargs, self.name, may_mask)

    def _by_converter(self, operation, args, kwargs):
        converter = find_converter(operation)
        if converter is None:
            raise Unsupported("no converter")
        try:
            inspect.signature(converter).bind(operation, self, *args, **kwargs)
        except TypeError as error:  # e.g. a mask
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
        self.training = traced.last_training
        return outputs

    def _by_trace(self, layer, args, kwargs):
        symbols = [x for x in tree.flatten((args, kwargs)) if isinstance(x, Symbol)]
        # Layers inside would look at the masks. These have none, and get the masks as arguments.
        is_masked = any(x.mask for x in symbols) and type(layer) not in _TAKE_MASKS
        if not isinstance(layer, layers.Layer) or is_masked:
            raise Untraceable
        training = self.training
        kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        traced = trace(layer, *self._as_tensors((args, kwargs)), training)
        prefix, length = self.name.split("/")[len(self._prefix)], len(self.graph.nodes)
        self._prefix = (*self._prefix, prefix)
        try:
            outputs = self._traced(traced, symbols)
        finally:
            self._prefix = self._prefix[:-1]
        if self.training != training and hides_its_calls(layer):
            self._is_unforeseen = True
        calls = any(isinstance(node.operation, KerasCall) for node in self.graph.nodes[length:])
        if calls and is_of_keras(layer):
            # One call of the Keras layer is faster than calls of its operations.
            raise Untraceable
        return outputs

    def _as_specified(self, outputs, operation, args, kwargs):
        """The outputs with the shapes and dtypes that Keras declares."""
        args, kwargs = self._as_tensors((args, kwargs))
        specs = output_specs(operation, args, kwargs)
        symbols, flat = tree.flatten(outputs), tree.flatten(specs)
        if len(symbols) != len(flat) or any(
            is_float(x.dtype) != is_float(spec.dtype) for x, spec in zip(symbols, flat, strict=True)
        ):
            raise Unsupported("its dtype")
        pairs = zip(symbols, flat, strict=True)
        return tree.pack_sequence_as(
            specs, [self.new_symbol(x.value, spec).with_mask(x.mask) for x, spec in pairs]
        )

    def _as_tensors(self, structure):
        return tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, x.dtype) if isinstance(x, Symbol) else x, structure
        )

    def cast(self, x, dtype):
        """As the writer's, as Keras's backend does it."""
        dtype = dtype_of_backend(dtype)
        y = super().cast(x, dtype)
        if is_float(x.dtype) and casts_saturate(dtype):
            self.graph.nodes[-1].operation.saturates = True
        return y

    def apply(self, operation, *args):
        """Converts a layer or model inside another; returns the `Symbol`s of its outputs."""
        return self._read(operation, args, {})


def _wrong_outputs(model, which):
    return ValueError(
        "The outputs of a model must be arrays of real numbers, whose first axis is that of the "
        f"batch. Received: model={model.name}, with {which}"
    )
