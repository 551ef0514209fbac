"""Initializes variables as zeros, because values from a file soon replace them.

To draw initial values, JAX compiles a program per shape, which takes more time and memory than the
rest of loading, and TensorFlow keeps them while it decodes the file. Untouched zeros take no
memory. PyTorch needs none of this: it copies the file's values into memory that it already has.
"""

import weakref

import keras
import numpy as np

from keras_trim.alignment import aligned_zeros


def initialize(variables):
    """Initializes the variables that Keras has deferred, as zeros where that helps.

    Returns:
        Function to call once values are loaded. Variables that received no value then get the
        initial value they would have had.
    """
    zeros_class = {"jax": _JaxZeros, "tensorflow": _TensorFlowZeros}.get(keras.backend.backend())
    begun = []
    for variable in variables:
        if zeros_class and variable.dtype != "string":
            zeros = zeros_class(variable._initializer)
            variable._initializer = zeros
            begun.append((variable, zeros))
    with keras.StatelessScope():
        pass  # leaving the scope initializes
    for variable, zeros in begun:
        zeros.find(variable)

    def initialize_the_rest():
        for variable, zeros in begun:
            if zeros.are_in(variable):
                _draw(variable, zeros.initializer)

    return initialize_the_rest


def _draw(variable, initializer):
    variable.assign(initializer(tuple(variable.shape), dtype=variable.dtype))


class _JaxZeros:
    """An initializer that stands in for a variable's own and recognizes its zeros."""

    def __init__(self, initializer):
        self.initializer = initializer

    def __call__(self, shape, dtype=None):
        import jax.numpy as jnp

        # Pass the dtype: without it, JAX compiles a program to copy the array.
        return jnp.asarray(aligned_zeros(shape, dtype), dtype)

    def find(self, variable):
        # A weak reference frees the zeros as soon as another value replaces them.
        self._value = weakref.ref(variable.value)

    def are_in(self, variable):
        return variable.value is self._value()


class _TensorFlowZeros:
    """The same for TensorFlow, where a variable is recognized by its memory."""

    def __init__(self, initializer):
        self.initializer = initializer
        self._zeros = None

    def __call__(self, shape, dtype=None):
        import tensorflow as tf

        zeros = aligned_zeros(shape, dtype)
        try:  # any other way would copy them
            tensor = tf.experimental.dlpack.from_dlpack(zeros.__dlpack__())
        except (BufferError, ValueError):  # NumPy does not know bfloat16, for example
            return self.initializer(shape, dtype=dtype)
        self._zeros = zeros
        return tensor

    def find(self, variable):
        if self._zeros is not None and not self.are_in(variable):  # on another device
            _draw(variable, self.initializer)

    def are_in(self, variable):
        if self._zeros is None:
            return False
        value = variable.value.read_value()
        if "CPU" not in value.device or self._zeros.any():  # moved, or changed in place
            return False
        return np.may_share_memory(memoryview(value), self._zeros)
