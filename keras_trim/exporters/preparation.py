"""Prepares the model for conversion: in float32, stateless, with names that converters accept.

Most models need no change. Others are copied from their configuration, in the user's own process,
where the user's classes are known.
"""

import contextlib
import dataclasses
import keyword
import re
import warnings

import keras
import numpy as np

from keras_trim.exporters.reasons import reason

_LOW_PRECISION = ("float16", "bfloat16")
# TensorFlow's scopes and PyTorch's modules accept no other characters.
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A model that converters accept.

    Args:
        model: The Keras model, or a copy of it.
        source: The user's model.
        names: Dict from names in `model` to names in `source`, where they differ.
        precision: String. The lowest-precision dtype that `source` computes in.
        notes: List of strings. Differences between the copy and the source.
    """

    model: keras.Model
    source: keras.Model
    names: dict
    precision: str
    notes: list

    @property
    def is_copy(self):
        return self.model is not self.source

    def name_of(self, layer):
        """Returns the user's name of a layer of `model`."""
        return self.names.get(layer.name, layer.name)

    @property
    def input_names(self):
        return [tensor.name for tensor in self.source.inputs]

    @property
    def argument_names(self):
        """Names of inputs as a function can take them: those of `source`, if they are in ASCII."""
        pairs = zip(self.model.inputs, self.source.inputs, strict=True)
        return [ours.name if ours.name in self.names else own.name for ours, own in pairs]

    @property
    def output_names(self):
        """Names of the layers that make the outputs, or else numbered names."""
        names = getattr(self.model, "output_names", None) or []
        names = [self.names.get(name, name) for name in names]
        count = len(keras.tree.flatten(self.model.outputs))
        is_usable = len(names) == count == len({*names, *self.input_names} - {*self.input_names})
        return names if is_usable else [f"output_{i}" for i in range(count)]


def prepare(model):
    """Makes the model to convert from the user's model.

    Raises:
        ValueError: if the model must be copied and its configuration cannot recreate it.
    """
    layers = list(model._flatten_layers())
    precision = _precision(layers)
    stateful = [layer for layer in layers if is_stateful(layer)]
    names = _safe_names(layers, {tensor.name for tensor in model.inputs})
    if precision == "float32" and not stateful and not names:
        return Prepared(model, model, {}, precision, [])
    try:
        copy = _copy(model, names)
    except Exception as error:
        needs = [f"computes in {precision}"] if precision != "float32" else []
        needs += ["keeps states"] if stateful else []
        needs += [f"has the name {next(iter(names))!r}"] if names else []
        raise ValueError(
            f"This model {' and '.join(needs)}, so it is converted as a copy. The copy cannot be "
            f"built from its configuration: {reason(error)}. Give its custom layers a `get_config` "
            f"with all their arguments. Received: model={model.name}"
        ) from error
    notes = []
    if stateful:
        notes.append(
            f"the file keeps no states: each run starts as after `reset_state()`, in "
            f"{', '.join(repr(layer.name) for layer in stateful[:3])}"
            f"{' and others' if stateful[3:] else ''}"
        )
    return Prepared(copy, model, {safe: name for name, safe in names.items()}, precision, notes)


def is_stateful(layer):
    """Whether a layer keeps state from one call to the next."""
    return isinstance(layer, keras.layers.RNN) and layer.stateful


@contextlib.contextmanager
def left_unchanged(model):
    """Restores everything that calls change in a model: states, statistics, seeds."""
    layers = list(model._flatten_layers())
    variables = [v for layer in layers for v in layer._non_trainable_variables]
    variables += [v for layer in layers if is_stateful(layer) for v in _states(layer)]
    variables += [seed.state for layer in layers for seed in layer._seed_generators]
    variables = list({id(variable): variable for variable in variables}.values())
    values = [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def reset_states(model):
    """Resets the states of a model to their initial values."""
    for layer in model._flatten_layers():
        if is_stateful(layer):
            layer.reset_state()


def _states(layer):
    return keras.tree.flatten(layer.states)


def _precision(layers):
    dtypes = {
        dtype
        for layer in layers
        for dtype in (layer.compute_dtype, layer.variable_dtype)
        if dtype in _LOW_PRECISION
    }
    return "bfloat16" if "bfloat16" in dtypes else "float16" if dtypes else "float32"


def _safe_names(layers, inputs):
    """Returns a dict that replaces names that converters reject.

    Args:
        layers: List of layers.
        inputs: Set of strings: the names of inputs, which become arguments of a function.
    """
    taken, names = {layer.name for layer in layers}, {}
    arguments = set()  # TensorFlow makes these out of names of inputs
    for layer in layers:
        name = layer.name
        is_safe = bool(_SAFE_NAME.fullmatch(name))
        stem = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or type(layer).__name__.lower()
        if name in inputs:
            argument = name.replace("-", "_")
            is_safe = is_safe and argument not in arguments and not _is_reserved(argument)
            arguments.add(argument if is_safe else None)
            stem = f"input_{stem}" if _is_reserved(stem) else stem
        if name in names or is_safe:
            continue
        safe, count = stem, 1
        while safe in taken or safe in arguments:
            count += 1
            safe = f"{stem}_{count}"
        taken.add(safe)
        arguments.add(safe)
        names[name] = safe
    return names


def _is_reserved(name):
    return name == "self" or keyword.iskeyword(name)


def _copy(model, names):
    config = _changed(keras.saving.serialize_keras_object(model), names)
    objects = {type(layer).__name__: type(layer) for layer in model._flatten_layers()}
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # for layers that custom layers create
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as those about names that we chose
            # This is the user's own model, so its Lambda layers are safe.
            copy = keras.saving.deserialize_keras_object(
                config, custom_objects=objects, safe_mode=False
            )
    finally:
        keras.config.set_dtype_policy(policy)
    states = {
        id(variable)
        for layer in model._flatten_layers()
        if is_stateful(layer)
        for variable in _states(layer)
    }
    sources = [variable for variable in model.weights if id(variable) not in states]
    for variable, source in zip(copy.weights, sources, strict=True):
        if variable.shape != source.shape:
            raise ValueError(f"'{source.path}' has another shape there")
        variable.assign(keras.ops.cast(source.value, variable.dtype))
    return copy


def _changed(config, names):
    """Returns a configuration in float32, without states and with other names."""
    if isinstance(config, dict):
        changed = {}
        for key, value in config.items():
            if key == "compile_config":
                continue
            if key == "stateful":
                value = False
            elif key == "dtype" and value in _LOW_PRECISION:
                value = "float32"
            elif key == "name" and isinstance(value, str):
                value = names.get(value, value)
            else:
                value = _changed(value, names)
            changed[key] = value
        if str(config.get("class_name")).endswith("DTypePolicy"):
            # That of a quantized layer names the policy from before.
            key = "source_name" if "source_name" in config["config"] else "name"
            changed["config"] = {**config["config"], key: "float32"}
        return changed
    if isinstance(config, list | tuple):
        if list(map(type, config)) == [str, int, int]:  # an output of a layer, in a model's graph
            return type(config)((names.get(config[0], config[0]), *config[1:]))
        return type(config)(_changed(value, names) for value in config)
    return config
