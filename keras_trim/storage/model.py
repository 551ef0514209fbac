"""A Keras model as a file, and back."""

import json

import keras
from keras import ops, saving
from keras.src.saving import saving_lib
from keras.src.saving.serialization_lib import ObjectSharingScope

from keras_trim.storage import assets
from keras_trim.storage.arrays import check_suffix, metadata
from keras_trim.storage.atomic import replace_file
from keras_trim.storage.container import Reader, Writer
from keras_trim.storage.errors import FormatError
from keras_trim.storage.keras_stores import ReadStore, WriteStore

_CONFIG = "config.json"
_SEEDS = "seeds/"


def save(model, path):
    """Saves a model."""
    path = check_suffix(path)
    with ObjectSharingScope():
        config = json.dumps(saving.serialize_keras_object(model), separators=(",", ":"))
    with replace_file(path) as file, assets.collecting() as (assets_store, asset_files):
        writer = Writer(file)
        saving_lib._save_state(
            model,
            weights_store=WriteStore(writer.write_array),
            assets_store=assets_store,
            inner_path="",
            visited_saveables=set(),
        )
        for index, variable in enumerate(_seeds(model)):
            writer.write_array(f"{_SEEDS}{index}", ops.convert_to_numpy(variable.value))
        writer.write_file(_CONFIG, config.encode())
        for name, data in asset_files():
            writer.write_file(name, data)
        writer.finish(metadata() | {"keras_version": keras.__version__})


def load(path, model=None, custom_objects=None, compile=True, safe_mode=True, max_bytes=None):
    """Loads a model."""
    with Reader(path, max_bytes) as reader:
        if model is None:
            model = _build(reader, custom_objects, compile, safe_mode)
        _load_state(reader, model)
    return model


def _build(reader, custom_objects, compile, safe_mode):
    if _CONFIG not in reader.files:
        raise FormatError("The file holds arrays but no model: read it by `load_arrays`.")
    config = json.loads(reader.read_file(_CONFIG))
    if not compile:
        config["compile_config"] = None
    with ObjectSharingScope():
        return saving.deserialize_keras_object(config, custom_objects, safe_mode=safe_mode)


def _load_state(reader, model):
    names = [name for name in reader.arrays if not name.startswith(_SEEDS)]
    store = ReadStore(names, reader.read_array)
    with assets.providing(reader) as assets_store:
        errors = {}
        saving_lib._load_state(
            model,
            weights_store=store,
            assets_store=assets_store,
            inner_path="",
            visited_saveables=set(),
            failed_saveables=set(),
            error_msgs=errors,
        )
    if errors:
        raise FormatError(str(errors))
    for index, variable in enumerate(_seeds(model)):
        variable.assign(reader.read_array(f"{_SEEDS}{index}"))


def _seeds(model):
    """The states of the model's random number generators, which Keras does not save."""
    saved = {id(variable) for variable in (*model.weights, *model.metrics_variables)}
    return [variable for variable in model.variables if id(variable) not in saved]
