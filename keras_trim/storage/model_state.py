"""The state of a Keras model as arrays with names, by Keras's own walk through the model."""

import keras
from keras.src.saving import saving_lib

from keras_trim.storage import assets
from keras_trim.storage.building import shorten
from keras_trim.storage.dtypes import DTYPES
from keras_trim.storage.errors import FormatError
from keras_trim.storage.keras_stores import ReadStore, WriteStore

SEEDS = "seeds/"
HAS_OPTIMIZER = "optimizer_state"


def save_state(model, write, assets_store=None, include_optimizer=False):
    """Passes what a model saves to `write`, a function of a name and a `numpy.ndarray`."""
    store = WriteStore(write)
    saving_lib._save_state(
        model,
        weights_store=store,
        assets_store=assets_store,
        inner_path="",
        visited_saveables=set() if include_optimizer else optimizer_ids(model),
    )
    store.close()


def saved_names(model):
    """Set of strings: the names of the arrays that a model saves, without its optimizers'."""
    names = set()
    save_state(model, lambda name, _: names.add(name))
    return names


def load_state(reader, model):
    """Loads a file's contents into the model. Returns a list of mismatches, as strings."""
    names = [name for name in reader.arrays if not name.startswith(SEEDS)]
    store = ReadStore(names, reader.read_array)
    visited = optimizer_ids(model)
    if reader.header.metadata.get(HAS_OPTIMIZER) == "true":
        visited = set()
        if getattr(model, "optimizer", None) is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
    failures = {}
    with assets.providing(reader) as assets_store:
        saving_lib._load_state(
            model,
            weights_store=store,
            assets_store=assets_store,
            inner_path="",
            visited_saveables=visited,
            failed_saveables=set(),
            error_msgs=failures,
        )
    errors = []
    for saveable, error in failures.values():
        if isinstance(error, (FormatError, MemoryError)):
            raise error
        errors.append(f"{getattr(saveable, 'name', type(saveable).__name__)}: {shorten(error)}")
    unread = sorted(name for name in store.unread if not _is_of_optimizer(name))
    if unread and not errors:
        # A layer may save more than it reads back.
        own = saved_names(model)
        unread = [name for name in unread if name not in own]
    if unread and not errors:
        errors.append(f"the model has no {', '.join(unread[:4])}{' ...' if unread[4:] else ''}")
    own_seeds = seeds(model)
    if not errors and len(reader.arrays) - len(names) == len(own_seeds):
        for index, variable in enumerate(own_seeds):
            name = f"{SEEDS}{index}"
            entry = reader.arrays.get(name)
            if entry is None or entry.shape != tuple(variable.shape) or entry.dtype not in DTYPES:
                errors.append(f"it has another {name}")
                break
            variable.assign(reader.read_array(name))
    return errors


def _is_of_optimizer(name):
    return name.startswith("optimizer/") or "/optimizer/" in name


def optimizers_of(model):
    """Lists the optimizers of a model and of the models inside it."""
    models = [layer for layer in model._flatten_layers() if isinstance(layer, keras.Model)]
    optimizers = (getattr(each, "optimizer", None) for each in models)
    return [optimizer for optimizer in optimizers if optimizer is not None]


def optimizer_ids(model):
    """Set of integers: the `id` of each of `optimizers_of`."""
    return {id(optimizer) for optimizer in optimizers_of(model)}


def seeds(model):
    """Lists the states of the model's random number generators, which Keras does not save."""
    saved = {id(variable) for variable in (*model.weights, *model.metrics_variables)}
    return [variable for variable in model.variables if id(variable) not in saved]
