"""Builds a model from its configuration, allocating no more than its weights claim to need."""

import copy
import json
import math

import keras
from keras import saving
from keras.src.backend import compute_output_spec
from keras.src.backend.common import global_state
from keras.src.saving.serialization_lib import ObjectSharingScope, SafeModeScope

from keras_trim.storage.dtypes import DTYPES
from keras_trim.storage.errors import FormatError
from keras_trim.storage.reader import FREE_BYTES
from keras_trim.storage.zeros import initialize

# Bytes allowed for variables that Keras does not save: states of random number generators.
_UNSAVED_BYTES = 1 << 20

_UNINITIALIZED = "uninitialized_variables"  # Keras's list of variables to initialize later


# Building layers takes time; in a Sequential model it grows with the square of their number, to
# half a minute for 250 of them. Few layers have no weights, so a file with many more layers than
# arrays is not a saved model.
_FREE_LAYERS, _FREE_SEQUENTIAL = 2000, 250
_LAYERS_PER_ARRAY = 8


def build(text, num_bytes, num_arrays, custom_objects, compile, safe_mode):
    """Builds a model.

    Args:
        text: Bytes. The model's configuration, as JSON.
        num_bytes: Integer. The most bytes the weights may take.
        num_arrays: Integer. The number of arrays that hold them.
        custom_objects: Dict: name -> class or function, or `None`.
        compile: Boolean. Whether to compile the model as well.
        safe_mode: Boolean. Whether to refuse the code in `Lambda` layers.

    Returns:
        Tuple of the model and a function to call after loading. Until that call, weights that the
        file does not set may be zeros.

    Raises:
        FormatError: if the model cannot be built or is too large.
    """
    try:
        config = json.loads(text)
        if not isinstance(config, dict):
            raise ValueError("its configuration is no object")
        check_layers(config, num_arrays)
        compile_config = config.pop("compile_config", None)
        with ObjectSharingScope():
            model, initialize_the_rest = _build(config, num_bytes, custom_objects, safe_mode)
            if not isinstance(model, keras.Model):
                raise ValueError(f"it is a {type(model).__name__}")
            if compile and compile_config:
                with saving.custom_object_scope(custom_objects or {}), SafeModeScope(safe_mode):
                    model.compile_from_config(compile_config)
        return model, initialize_the_rest
    except FormatError:
        raise
    except Exception as error:  # Keras passes on whatever a layer raises
        raise FormatError(f"The file's model cannot be built: {shorten(error)}") from error


def _build(config, num_bytes, custom_objects, safe_mode):
    """Builds the model without memory for its weights first: their shapes may be lies."""

    def deserialize(config):
        # Keras modifies the configuration that it deserializes.
        return saving.deserialize_keras_object(
            copy.deepcopy(config), custom_objects, safe_mode=safe_mode
        )

    plain = _stateless(_without_compile_configs(config))
    pending = global_state.get_global_attribute(_UNINITIALIZED)
    global_state.set_global_attribute(_UNINITIALIZED, [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            model = deserialize(plain)
        _check_size(model, num_bytes)
        if plain != config:
            _check_states(model)
        if plain == config:
            initialize_the_rest = initialize(model.weights)
            _register_parameters(model)
            return model, initialize_the_rest
    except Exception as error:
        # Only custom layers create variables from values; Keras's own never do.
        if "stateless scope" not in str(error) or not _has_custom_classes(config):
            raise
    finally:
        global_state.set_global_attribute(_UNINITIALIZED, pending)
    return deserialize(config), lambda: None


def _register_parameters(model):
    """Registers the parameters with PyTorch, which layers skip while variables have no values."""
    for layer in model._flatten_layers():
        layer._post_build()


def _stateless(config):
    """Returns the configuration with `stateful=False` in all recurrent layers.

    Stateful layers allocate their state as zeros right away, however large it is.
    """
    if isinstance(config, dict):
        return {
            key: False if key == "stateful" and value is True else _stateless(value)
            for key, value in config.items()
        }
    return [*map(_stateless, config)] if isinstance(config, list) else config


def _check_states(model):
    """Raises `FormatError` if the unsaved states of recurrent layers are too large."""
    total = 0
    for layer in model._flatten_layers():
        shapes = getattr(layer, "_build_shapes_dict", None)
        if not isinstance(layer, keras.layers.RNN) or not shapes:
            continue
        batch_size = next(iter(shapes.values()))[0] or 0
        states = compute_output_spec(
            lambda _, layer=layer, size=batch_size: layer.get_initial_state(size),
            keras.KerasTensor((1,)),
        )
        total += _num_bytes(keras.tree.flatten(states))
    if total > FREE_BYTES:
        raise FormatError(
            f"The file's model has recurrent layers whose states take {total:,} bytes."
        )


def _check_size(model, num_bytes):
    """Raises `FormatError` if more variables wait for memory than the file has weights for."""
    waiting = global_state.get_global_attribute(_UNINITIALIZED)
    own = {id(variable) for variable in getattr(model, "variables", ())}
    others = [variable for variable in waiting if id(variable) not in own]
    if _num_bytes(others) > _UNSAVED_BYTES:
        # Bidirectional, for example, builds the layer it is given, and then uses copies of it.
        waiting = [variable for variable in waiting if id(variable) in own]
        global_state.set_global_attribute(_UNINITIALIZED, waiting)
    total = _num_bytes(waiting)
    if total > num_bytes + _UNSAVED_BYTES:
        raise FormatError(
            f"The file holds {num_bytes:,} bytes of weights for a model that takes {total:,}."
        )


def _num_bytes(tensors):
    return sum(math.prod(each.shape) * DTYPES[each.dtype].itemsize for each in tensors)


def check_layers(config, num_arrays):
    """Raises `FormatError` if a model has far more layers than arrays."""
    for count, free in (
        (_count_layers(config), _FREE_LAYERS),
        (_count_layers(config, "Sequential"), _FREE_SEQUENTIAL),
    ):
        if count > free + _LAYERS_PER_ARRAY * num_arrays:
            raise FormatError(
                f"The file's model has {count:,} layers, too many for the {num_arrays:,} arrays "
                "that the file holds. If you trust it, load the weights into a model of your own."
            )


def _count_layers(config, of_class=None):
    """Integer: the number of layers in models, or in models of one class."""
    if isinstance(config, list):
        return sum(_count_layers(item, of_class) for item in config)
    if not isinstance(config, dict):
        return 0
    inner = config.get("config")
    layers = inner.get("layers") if isinstance(inner, dict) else None
    is_counted = isinstance(layers, list) and of_class in (None, config.get("class_name"))
    others = sum(_count_layers(item, of_class) for item in config.values())
    return others + (len(layers) if is_counted else 0)


def _without_compile_configs(config):
    """Returns the configuration of the same model, with nothing in it compiled."""
    if isinstance(config, dict):
        return {
            key: _without_compile_configs(value)
            for key, value in config.items()
            if key != "compile_config" or not value
        }
    return [*map(_without_compile_configs, config)] if isinstance(config, list) else config


def _has_custom_classes(config):
    if isinstance(config, dict):
        # Unregistered classes from `custom_objects` have a registered name, too.
        is_custom = isinstance(config.get("registered_name"), str)
        return is_custom or _has_custom_classes([*config.values()])
    return isinstance(config, list) and any(map(_has_custom_classes, config))


def shorten(error):
    """Returns the cause in an error's text, without the configurations and values Keras adds."""
    text = " ".join(str(error).split()).rsplit("Exception encountered:", maxsplit=1)[-1]
    for end in ("Full object config:", "config={", "Received config=", "Target variable:"):
        text = text.split(end)[0]
    text = text.strip() or type(error).__name__
    return text if len(text) <= 400 else text[:400] + "..."
