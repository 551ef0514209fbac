"""What Keras knows of a model: whether it is a graph, its inputs, and how it is called."""

import keras
from keras import layers, tree
from keras.src.models import Functional  # Keras does not export it

from keras_trim.arguments import check_model
from keras_trim.inference.frontend.tracing import Untraceable, input_tensors, trace
from keras_trim.inference.ir.dtypes import is_number


def numbered(structure):
    """The structure with the position of each leaf in its place."""
    return tree.pack_sequence_as(structure, list(range(len(tree.flatten(structure)))))


def unpacked(outputs):
    """What a graph gives when it is called: one output in a list or tuple by itself."""
    is_single = isinstance(outputs, list | tuple) and len(outputs) == 1
    return outputs[0] if is_single else outputs


def dtype_of_backend(dtype):
    """What the backend makes of a dtype: JAX has numbers of 64 bits only if asked for them."""
    if keras.backend.backend() != "jax" or not is_number(dtype):
        return dtype
    import jax

    return jax.dtypes.canonicalize_dtype(dtype).name


def is_graph(operation):
    """Whether a model computes its graph: a subclass with a `call` of its own does not."""
    is_sequential = isinstance(operation, keras.Sequential)
    if is_sequential:
        return type(operation).call is keras.Sequential.call and operation._functional is not None
    return isinstance(operation, Functional) and type(operation).call is Functional.call


def fits(function, inputs):
    """Whether a nested model takes its inputs as they are, without sorting or expanding them."""
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
    """An operation of Keras that was traced, without the None that stands for a free size.

    Raises:
        Untraceable: if there is more than one: the operation alone does not tell the sizes.
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
    """Whether Keras knows what a layer gives without calling those within."""
    return any(
        getattr(type(layer), name) is not getattr(layers.Layer, name)
        for name in ("compute_output_shape", "compute_output_spec")
    )


def function_of(model):
    """What computes a model, its `Function` or a `Trace` or None, and its inputs."""
    check_model(model, must_be_built=False)
    if not model.built:
        raise ValueError(
            "The engine reads a model's graph, so the model must be built: give it a "
            f"`keras.Input` or call it once. Received: model={model.name}, which was never built"
        )
    if is_graph(model):
        function = model._functional if isinstance(model, keras.Sequential) else model
        return function, function._inputs_struct
    # Keras keeps no dtypes. Those that look up embeddings may refuse floats.
    for dtype in (model.input_dtype, "int32"):
        inputs = input_tensors(model, dtype)
        try:
            training = False if model._call_has_training_arg else None
            return trace(model, (inputs,), {}, training, is_outermost=True), inputs
        except Untraceable:
            continue
    return None, input_tensors(model, model.input_dtype)
