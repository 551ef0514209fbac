"""Variables that begin as zeros, as a file's values soon take their place.

To draw the values that weights begin with, JAX compiles a program for every shape, which takes more
time and memory than all the rest of loading does, and TensorFlow holds them while the file's are
decoded. Zeros that nothing touches take no memory. PyTorch copies the file's values into the memory
that it has.
"""

import weakref

import keras
import numpy as np

from keras_trim.alignment import aligned_zeros


def initialize(variables):
    """Initializes the variables that Keras has put off, those given as zeros if that helps.

    Returns:
        Function to call when values have been loaded: variables that got none get what they would
        have begun with.
    """
    zeros_class = {"jax": _JaxZeros, "tensorflow": _TensorFlowZeros}.get(keras.backend.backend())
    begun = []
    for variable in variables:
        if zeros_class and variable.dtype != "string":
            zeros = zeros_class(variable._initializer)
            variable._initializer = zeros
            begun.append((variable, zeros))
    with keras.StatelessScope():
        pass  # leaving it initializes
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
    """The zeros of one variable: its initializer, in place of the one given."""

    def __init__(self, initializer):
        self.initializer = initializer

    def __call__(self, shape, dtype=None):
        import jax.numpy as jnp

        # With the dtype, as JAX compiles a program that copies an array it is given without.
        return jnp.asarray(aligned_zeros(shape, dtype), dtype)

    def find(self, variable):
        # Weakly: they are freed as soon as another value takes their place.
        self._value = weakref.ref(variable.value)

    def are_in(self, variable):
        return variable.value is self._value()


class _TensorFlowZeros:
    """The same for TensorFlow, whose variables are known by the memory they use."""

    def __init__(self, initializer):
        self.initializer = initializer
        self._zeros = None

    def __call__(self, shape, dtype=None):
        import tensorflow as tf

        zeros = aligned_zeros(shape, dtype)
        try:  # any other way copies them
            tensor = tf.experimental.dlpack.from_dlpack(zeros.__dlpack__())
        except (BufferError, ValueError):  # bfloat16, for one, is unknown to NumPy
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
        if "CPU" not in value.device or self._zeros.any():  # or changed in place
            return False
        return np.may_share_memory(memoryview(value), self._zeros)
