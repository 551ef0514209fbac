"""Inspects Keras models: whether they are graphs, their inputs, and their functions."""

import keras
from keras import layers, tree
from keras.src.models import Functional  # Keras does not export it

from keras_trim.arguments import check_model
from keras_trim.inference.frontend.tracing import Untraceable, input_tensors, trace
from keras_trim.inference.ir.dtypes import is_number


def numbered(structure):
    """The structure with each leaf replaced by its position."""
    return tree.pack_sequence_as(structure, list(range(len(tree.flatten(structure)))))


def unpacked(outputs):
    """The outputs as a graph model returns them: unpacks a list or tuple of one."""
    is_single = isinstance(outputs, list | tuple) and len(outputs) == 1
    return outputs[0] if is_single else outputs


def dtype_of_backend(dtype):
    """The dtype that the backend uses for `dtype`.

    JAX disables 64-bit numbers by default; Keras replaces the unsigned ones that PyTorch lacks.
    """
    if keras.backend.backend() == "torch":
        return {"uint16": "int32", "uint32": "int64"}.get(dtype, dtype)
    if keras.backend.backend() != "jax" or not is_number(dtype):
        return dtype
    import jax

    return jax.dtypes.canonicalize_dtype(dtype).name


def casts_saturate(dtype):
    """Whether the backend turns floats that are too large for an integer dtype into its limits."""
    return keras.backend.backend() == "jax" and "int" in dtype


def is_graph(operation):
    """Whether a model computes its Keras graph; a subclass with its own `call` does not."""
    is_sequential = isinstance(operation, keras.Sequential)
    if is_sequential:
        return type(operation).call is keras.Sequential.call and operation._functional is not None
    return isinstance(operation, Functional) and type(operation).call is Functional.call


def fits(function, inputs):
    """Whether a nested model takes these inputs without reordering or expanding them."""
    expected = function._inputs_struct
    try:
        tree.assert_same_structure(expected, inputs)
    except ValueError:
        return False
    ranks = zip(tree.flatten(expected), tree.flatten(inputs), strict=True)
    return all(len(a.shape) == len(b.shape) for a, b in ranks)


def is_of_keras(layer):
    return type(layer).__module__.startswith("keras.")


def with_known_sizes(operation):
    """A traced Keras operation, with the None of a free size in a reshape replaced by -1.

    Raises:
        Untraceable: if the operation has other free sizes, which it cannot determine.
    """
    if getattr(operation, "newshape", None) is not None:
        shape = tuple(tree.flatten(operation.newshape))
        if shape.count(None) == 1 and -1 not in shape:
            return keras.src.ops.numpy.Reshape([-1 if n is None else n for n in shape])
    for name, value in vars(operation).items():
        if "shape" in name and isinstance(value, list | tuple) and None in value:
            raise Untraceable(f"{operation.name} depends on sizes that are free")
    return operation


def hides_its_calls(layer):
    """Whether Keras infers a layer's outputs without calling the layers inside."""
    return any(
        getattr(type(layer), name) is not getattr(layers.Layer, name)
        for name in ("compute_output_shape", "compute_output_spec")
    )


def function_of(model):
    """Returns a model's `Function`, `Trace` or None (not traceable), and its symbolic inputs."""
    check_model(model, must_be_built=False)
    if not model.built:
        raise ValueError(
            "The engine reads a model's graph, so the model must be built: give it a "
            f"`keras.Input` or call it once. Received: model={model.name}, which was never built"
        )
    if is_graph(model):
        function = model._functional if isinstance(model, keras.Sequential) else model
        return function, function._inputs_struct
    # Keras does not record input dtypes, and models with embeddings may refuse floats.
    for dtype in (model.input_dtype, "int32"):
        inputs = input_tensors(model, dtype)
        try:
            training = False if model._call_has_training_arg else None
            return trace(model, (inputs,), {}, training, is_outermost=True), inputs
        except Untraceable:
            continue
    return None, input_tensors(model, model.input_dtype)


def refuse_own_prediction(model):
    """Raises ValueError if `predict` computes something else than `call`."""
    for name in ("predict_step", "predict", "make_predict_function"):
        owner = next(cls for cls in type(model).__mro__ if name in vars(cls))
        if name in vars(model) or not owner.__module__.startswith("keras.src."):
            raise ValueError(
                f"The engine returns what `model(x)` returns, but this model overrides `{name}`, "
                "which may return something else. Do that work in `call`, or outside the engine, "
                "and make the engine of a model without it: "
                "`Engine(keras.Model(model.input, model.output))`. "
                f"Received: model={model.name}, of the class {type(model).__name__}"
            )
