"""Counts the weights and zeros of a model, for `report` and `diff`."""

import dataclasses
import math
import pathlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Weight:
    """One weight of a layer.

    Args:
        path: String. The variable's path without the model's name.
        shape: Tuple of integers.
        dtype: String.
        zeros: Integer. Number of zeros.
        reason: String. Why it is not prunable, or `None` if it is.
        variable: `keras.Variable`.
    """

    path: str
    shape: tuple
    dtype: str
    zeros: int
    reason: str | None
    variable: object = dataclasses.field(repr=False)

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def sparsity(self):
        """Float: zeros over size."""
        return self.zeros / self.size if self.size else 0.0

    @property
    def values(self):
        """NumPy array of the weight's values."""
        return to_numpy(self.variable)

    @property
    def num_bytes(self):
        return self.size * item_size(self.dtype)

    def to_dict(self):
        return {
            "path": self.path,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "parameters": self.size,
            "zeros": self.zeros,
            "sparsity": self.sparsity,
            "bytes": self.num_bytes,
            "prunable": self.reason is None,
            "reason": self.reason,
        }


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer that owns weights.

    Args:
        name: String. The layer's path without the model's name.
        kind: String. Its class.
        weights: List of `Weight`.
    """

    name: str
    kind: str
    weights: list

    @property
    def size(self):
        return sum(weight.size for weight in self.weights)

    @property
    def zeros(self):
        return sum(weight.zeros for weight in self.weights)

    @property
    def sparsity(self):
        return self.zeros / self.size if self.size else 0.0

    @property
    def prunable(self):
        """List of the weights that can be pruned."""
        return [weight for weight in self.weights if weight.reason is None]

    def to_dict(self):
        return {
            "name": self.name,
            "type": self.kind,
            "parameters": self.size,
            "zeros": self.zeros,
            "sparsity": self.sparsity,
            "weights": [weight.to_dict() for weight in self.weights],
        }


@dataclasses.dataclass(frozen=True)
class Summary:
    """A model, layer by layer.

    Args:
        name: String. The model's name.
        path: `pathlib.Path` of its file.
        layers: List of `Layer`.
    """

    name: str
    path: pathlib.Path
    layers: list

    @property
    def weights(self):
        return [weight for layer in self.layers for weight in layer.weights]

    @property
    def prunable(self):
        return [weight for weight in self.weights if weight.reason is None]


def count(weights):
    """Dict: parameters, zeros and sparsity of a list of weights."""
    size, zeros = (sum(getattr(w, field) for w in weights) for field in ("size", "zeros"))
    return {"parameters": size, "zeros": zeros, "sparsity": zeros / size if size else 0.0}


def summarize(model, path, advance=lambda: None):
    """Counts a model's weights.

    Args:
        model: `keras.Model`.
        path: `pathlib.Path` of its file.
        advance: Function to call after each weight.

    Returns:
        `Summary`.
    """
    from keras_trim.policies import candidates

    owned = {id(weight) for weight in model.weights}  # excludes the states of random generators
    found = [c for c in candidates(model) if id(c.variable) in owned]
    prefix = f"{model.name}/"
    if not all(c.variable.path.startswith(prefix) for c in found):
        prefix = ""
    layers = {}
    for candidate in found:
        variable = candidate.variable
        values = to_numpy(variable)
        weight = Weight(
            path=variable.path.removeprefix(prefix),
            shape=tuple(variable.shape),
            dtype=str(variable.dtype),
            zeros=values.size - int(np.count_nonzero(values)),
            reason=candidate.reason,
            variable=variable,
        )
        name = weight.path.rpartition("/")[0] or candidate.layer.name
        kind = type(candidate.layer).__name__
        layers.setdefault(id(candidate.layer), Layer(name, kind, [])).weights.append(weight)
        advance()
    return Summary(model.name, path, list(layers.values()))


def to_numpy(variable):
    """The values of a variable; types that NumPy lacks, such as bfloat16, become float32."""
    from keras import ops

    values = ops.convert_to_numpy(variable.value)
    return values if values.dtype.isbuiltin == 1 else values.astype("float32")


def item_size(dtype):
    """Integer: bytes of one element of a Keras dtype."""
    if dtype in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        return 2 if dtype == "bfloat16" else 1
    return np.dtype(dtype).itemsize
