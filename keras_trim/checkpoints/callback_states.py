"""Reads and restores the state of Keras's own callbacks, as JSON types and arrays."""

import keras
import numpy as np

# Attributes that a callback carries from one epoch to the next.
_ATTRIBUTES = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: (
        "best",
        "_batches_seen_since_last_saving",
        "_last_batch_seen",
    ),
    keras.callbacks.History: ("history", "epoch"),
}
_ARRAYS = "callbacks/"


def read(callbacks):
    """Reads the state of each known callback: a list of JSON types, and a dict name -> array."""
    states, arrays = [], {}
    for position, (cls, callback) in enumerate(_known(callbacks)):
        values = {}
        for attribute in _ATTRIBUTES[cls]:
            value = getattr(callback, attribute, None)
            if attribute == "best_weights" and value is not None:
                names = [f"{_ARRAYS}{position}/{attribute}/{i}" for i in range(len(value))]
                arrays |= dict(zip(names, map(np.asarray, value), strict=True))
                value = {"arrays": names}
            values[attribute] = _plain(value)
        states.append([cls.__name__, values])
    return states, arrays


def write(callbacks, states, arrays):
    """Restores what `read` returned. Callbacks without a saved state start afresh."""
    left = list(states)
    for cls, callback in _known(callbacks):
        found = next((state for state in left if state[0] == cls.__name__), None)
        if found is None:
            continue
        left.remove(found)
        for attribute, value in found[1].items():
            if isinstance(value, dict) and set(value) == {"arrays"}:
                value = [arrays[name] for name in value["arrays"]]
            setattr(callback, attribute, value)


def load_arrays(reader):
    """Dict: name -> `numpy.ndarray`, the callbacks' arrays in a file."""
    return {name: reader.read_array(name) for name in reader.arrays if name.startswith(_ARRAYS)}


def _known(callbacks):
    for callback in callbacks:
        for cls in _ATTRIBUTES:
            if isinstance(callback, cls):
                yield cls, callback
                break


def _plain(value):
    """Converts a value of logs to JSON types: numbers, lists and dicts."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return keras.ops.convert_to_numpy(value).tolist()
