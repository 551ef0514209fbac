"""Writes safetensors files: a model's weights by name, readable without Keras.

- A tensor's name is the variable's path, such as `sequential/dense/kernel`. If a model has a path
  more than once, the second and later ones end in `:1`, `:2`, in the order of `model.weights`.
- `weights="float16"` casts float weights.
- `weights="int8"` stores float weights of rank 2 or more as integers q plus a float32 scale per
  index of the last axis, under the same name followed by `.scale`. The weight is q * scale.
- The metadata holds the model's name and class, the versions of Keras and keras-trim, and
  `weights`.

Zeros take as much space as other values. Compress the file, or save with `keras_trim.save`.
"""

import keras
import numpy as np

from keras_trim._version import __version__
from keras_trim.exporters.verification import Converted

PACKAGES = ("safetensors",)


def convert(model, weights):
    """Converts a model's weights on any backend.

    Args:
        model: Built Keras model.
        weights: `None` (unchanged), `"float16"` or `"int8"`.

    Returns:
        `Converted`.

    Raises:
        ValueError: if float16 would overflow, int8 has to store NaN or infinity, or a weight has
            the name of another one's scale.
    """
    import safetensors.numpy

    tensors = {}
    for name, variable in zip(tensor_names(model), model.weights, strict=True):
        encoded = _encode(name, keras.ops.convert_to_numpy(variable.value), weights)
        if tensors.keys() & encoded.keys():
            raise ValueError(
                "A weight has the name that the file needs for another one's scale: rename it, or "
                f"use weights=None. Received: weights={weights!r}, weight={name}"
            )
        tensors.update(encoded)
    metadata = {
        "format": "keras",
        "model": model.name,
        "class": type(model).__name__,
        "keras": keras.__version__,
        "keras_trim": __version__,
        "weights": weights or "unchanged",
    }
    return Converted(safetensors.numpy.save(tensors, metadata=metadata))


def tensor_names(model):
    """Returns the names of `model.weights` in the file: their paths, made unique."""
    names, counts = [], {}
    for variable in model.weights:
        count = counts.get(variable.path, 0)
        counts[variable.path] = count + 1
        names.append(f"{variable.path}:{count}" if count else variable.path)
    return names


def _encode(name, values, weights):
    """Returns the tensors that hold one weight."""
    is_float = keras.backend.is_float_dtype(values.dtype.name)
    if not is_float or weights is None:
        return {name: _contiguous(values)}
    if weights == "float16" or values.ndim < 2:
        if weights == "int8":
            return {name: _contiguous(values)}
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if np.isinf(halves).sum() > np.isinf(values).sum():
            raise ValueError(
                "A weight is too large for float16 (65504 at most): use weights=None. "
                f"Received: weights='float16', weight={name}"
            )
        return {name: _contiguous(halves)}
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(
            "A weight holds NaN or infinity, which int8 cannot store: use weights=None or "
            f"'float16'. Received: weights='int8', weight={name}"
        )
    largest = np.abs(values).max(axis=tuple(range(values.ndim - 1)), initial=0.0)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return {name: _contiguous(np.rint(values / scale).astype(np.int8)), f"{name}.scale": scale}


def _contiguous(values):
    # safetensors reads an array's buffer regardless of strides. The reshape keeps scalars.
    return np.ascontiguousarray(values).reshape(values.shape)
