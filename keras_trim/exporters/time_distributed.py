"""Supports `TimeDistributed` with any number of steps when a converter traces.

Keras loops over the steps in Python, or with a map that converters do not support. This computes
all steps at once, as if they were more examples.
"""

import contextlib

from keras import layers, ops


@contextlib.contextmanager
def as_batches():
    """Makes `TimeDistributed` compute all steps at once if their number is free."""
    as_in_keras = layers.TimeDistributed.call

    def call(self, inputs, training=None, mask=None):
        if isinstance(inputs.shape[1], int):
            return as_in_keras(self, inputs, training=training, mask=mask)
        sizes = ops.shape(inputs)
        kwargs = {"training": training} if self.layer._call_has_training_arg else {}
        if self.layer._call_has_mask_arg and mask is not None:
            kwargs["mask"] = ops.reshape(mask, (-1, *ops.shape(mask)[2:]))
        outputs = self.layer.call(ops.reshape(inputs, (-1, *sizes[2:])), **kwargs)
        return ops.reshape(outputs, (*sizes[:2], *ops.shape(outputs)[1:]))

    layers.TimeDistributed.call = call
    try:
        yield
    finally:
        layers.TimeDistributed.call = as_in_keras
