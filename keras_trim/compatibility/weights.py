"""Lists the weights that a runtime multiplies by (kernels and tables), and counts their zeros."""

import dataclasses
import functools

import keras
import numpy as np

from keras_trim.compatibility.report import WeightCheck
from keras_trim.kinds import matrix_view
from keras_trim.policies import candidates


@dataclasses.dataclass(frozen=True)
class Weight:
    """A kernel or embedding table of a layer.

    Args:
        layer: Keras layer that owns it.
        variable: `keras.Variable` of rank 2 or more.
    """

    layer: keras.layers.Layer
    variable: keras.Variable

    @functools.cached_property
    def values(self):
        return keras.ops.convert_to_numpy(self.variable.value)

    @functools.cached_property
    def zeros(self):
        return self.values.size - int(np.count_nonzero(self.values))

    @property
    def sparsity(self):
        return self.zeros / self.values.size if self.values.size else 0.0

    @functools.cached_property
    def matrices(self):
        """Array (matrices, inputs, outputs). A convolution has one matrix per window position."""
        view = matrix_view(self.layer, self.variable)
        order = view.stack + view.inputs + view.outputs
        shape = view.shape(self.values.shape)
        return self.values.transpose(order).reshape(shape)

    def check(self, rule=None, cure=None, is_sparse=None, is_stored_sparsely=None):
        """Returns the row of a report. By default a weight that breaks no rule runs sparsely."""
        return WeightCheck(
            path=self.variable.path,
            layer=self.layer.name,
            kind=type(self.layer).__name__,
            shape=tuple(self.variable.shape),
            zeros=self.zeros,
            is_sparse=rule is None if is_sparse is None else is_sparse,
            rule=rule,
            cure=cure,
            is_stored_sparsely=is_stored_sparsely,
        )


def kernels(model):
    """Lists the float weights of rank 2 or more in a model, at any depth, each once."""
    return [
        Weight(candidate.layer, candidate.variable)
        for candidate in candidates(model)
        if len(candidate.variable.shape) >= 2
        and keras.backend.is_float_dtype(candidate.variable.dtype)
    ]
