"""Reads and restores the variables of a model in training, by name."""

import keras
import numpy as np

from keras_trim.checkpoints import processes
from keras_trim.finding import optimizer_places
from keras_trim.identity import names
from keras_trim.storage.dtypes import dtype_name
from keras_trim.storage.errors import FormatError


def named_variables(model):
    """Returns every variable that training changes, as a dict: name -> Keras variable.

    These are the weights, the seeds of the model's random generators, the metrics, and the
    variables of the optimizers, including masks. A name is the variable's path after a prefix for
    its group.
    """
    groups = {"model": model.variables, "metrics": model.metrics_variables}
    groups["optimizer"] = [v for optimizer in _optimizers(model) for v in optimizer.variables]
    named, seen = {}, set()
    for group, variables in groups.items():
        own = {id(variable): variable for variable in variables if id(variable) not in seen}
        seen |= own.keys()
        for name, variable in zip(names(own.values()), own.values(), strict=True):
            named[f"{group}/{name}"] = variable
    return named


def _optimizers(model):
    """Lists the built optimizers of a model and the models inside it, each once."""
    found = {}
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model):
            for optimizer, _ in optimizer_places(layer):
                if optimizer.built:
                    found[id(optimizer)] = optimizer
    return list(found.values())


def read_variables(model):
    """Reads all variables as a dict: name -> `numpy.ndarray`."""
    return {name: processes.to_numpy(v) for name, v in named_variables(model).items()}


def load_variables(reader, model):
    """Assigns a file's values to a model's variables: all of them or none.

    Args:
        reader: `keras_trim.storage.reader.Reader`.
        model: Built Keras model with built optimizers.

    Returns:
        List of tuples: a variable and the `numpy.ndarray` assigned to it.

    Raises:
        ValueError: if the variables of the file and of the model differ.
        keras_trim.FormatError: if the file is damaged.
    """
    variables = named_variables(model)
    prefixes = tuple({name.split("/")[0] + "/" for name in variables})
    saved = {name: entry for name, entry in reader.arrays.items() if name.startswith(prefixes)}
    differences = [
        f"the checkpoint has {name} of {_of_entry(entry)}, the model does not"
        for name, entry in saved.items()
        if name not in variables
    ]
    for name, variable in variables.items():
        if name not in saved:
            differences.append(
                f"the model has {name} of {_of_variable(variable)}, the checkpoint does not"
            )
        elif _of_entry(saved[name]) != _of_variable(variable):
            differences.append(
                f"{name} has {_of_entry(saved[name])} in the checkpoint and "
                f"{_of_variable(variable)} in the model"
            )
    if differences:
        raise ValueError(
            "The checkpoint belongs to a different model or optimizer than the one `fit` is "
            "training. Build and compile the same one in the same order (Keras numbers objects "
            "without a name; `keras.utils.clear_session()` resets that), or use another "
            "`directory`. "
            f"Received: {len(differences)} differences: {'; '.join(differences[:4])}"
            f"{'; ...' if differences[4:] else ''}"
        )
    arrays = {name: reader.read_array(name) for name in variables}  # raises if damaged
    for name, array in arrays.items():
        if array.shape != tuple(variables[name].shape):
            raise FormatError(f"The file is damaged: {name} does not have its recorded shape.")
    pairs = [(variable, arrays[name]) for name, variable in variables.items()]
    for variable, value in pairs:
        variable.assign(value)
    return pairs


def _of_entry(entry):
    return f"shape {tuple(entry.shape)} and dtype {entry.decoded_dtype}"


def _of_variable(variable):
    dtype = dtype_name(np.dtype(keras.backend.standardize_dtype(variable.dtype)))
    return f"shape {tuple(variable.shape)} and dtype {dtype}"
