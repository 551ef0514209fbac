"""Carries marks along with a model: into `.keras` files, JSON, pickles, copies and clones.

Keras has no hook for adding data to a saved model. So importing keras-trim wraps the Keras
functions that convert a model to a config and back, and adds one key to the config of a marked
model. Keras ignores that key if keras-trim is not imported. And `load_weights` first gives a marked
model the optimizer that it will have in training, including masks.
"""

import functools
import warnings

import keras
from keras.src.saving import serialization_lib

from keras_trim import guard
from keras_trim.annotations import (
    get_annotation,
    get_spec,
    is_to_be_pruned,
    marked_variables,
    set_spec,
)
from keras_trim.attachment import attach
from keras_trim.specs import specs_from_config, specs_to_config

_KEY = "keras_trim"


def install():
    """Installs the wrappers, once per process."""
    if getattr(serialization_lib.get_build_and_compile_config, "_keras_trim", False):
        return
    add_config = serialization_lib.get_build_and_compile_config
    deserialize = serialization_lib.deserialize_keras_object

    @functools.wraps(add_config)
    def add_config_and_marks(obj, config):
        add_config(obj, config)
        if isinstance(obj, keras.Model):
            marks = marks_to_config(obj)
            if marks is not None:
                config[_KEY] = marks

    @functools.wraps(deserialize)
    def deserialize_with_marks(config, *args, **kwargs):
        instance = deserialize(config, *args, **kwargs)
        if isinstance(config, dict) and _KEY in config and isinstance(instance, keras.Model):
            marks_from_config(instance, config[_KEY])
        return instance

    add_config_and_marks._keras_trim = True
    serialization_lib.get_build_and_compile_config = add_config_and_marks
    guard.replace_function(deserialize, deserialize_with_marks)
    serialization_lib.deserialize_keras_object = deserialize_with_marks  # for models inside others
    clone_model = keras.models.clone_model
    guard.replace_function(clone_model, _clone_with_marks(clone_model))
    keras.Model.load_weights = _load_weights_with_masks(keras.Model.load_weights)


def marks_to_config(model):
    """Returns the marks of a model's weights as JSON types, or `None` if it has none."""
    specs = [(variable, get_spec(variable)) for variable in marked_variables(model)]
    return specs_to_config(specs, model.variables) if specs else None


def marks_from_config(model, config):
    """Marks the model's unmarked weights from a config. Warns if that is not possible."""
    try:
        specs = specs_from_config(config, model.variables)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        warnings.warn(
            f"'{model.name}' was marked for pruning when it was saved or copied. Its marks are "
            "lost: call `keras_trim.prune_low_magnitude(model, ...)` again. They could not be "
            f"restored because of: {error}",
            stacklevel=3,
        )
        return
    guard.install()
    for index, spec in specs.items():
        if get_annotation(model.variables[index]) is None:
            set_spec(model.variables[index], spec)


def _clone_with_marks(clone_model):
    @functools.wraps(clone_model)
    def clone(model, *args, **kwargs):
        copy = clone_model(model, *args, **kwargs)
        marks = marks_to_config(model)
        if marks is not None:
            marks_from_config(copy, marks)
        return copy

    return clone


def _load_weights_with_masks(load_weights):
    @functools.wraps(load_weights)
    def load(model, *args, **kwargs):
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None and model.built and is_to_be_pruned(model):
            attach(model)
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
        return load_weights(model, *args, **kwargs)

    return load
