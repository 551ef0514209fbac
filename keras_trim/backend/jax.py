"""Pruning on JAX."""

import jax
import keras
import numpy as np
from jax import lax
from keras import ops

from keras_trim.backend import xla_selection
from keras_trim.backend.float_bits import integer_type, is_half

CATCHES_UP_EARLY = True


# Selection


def magnitude_bits(values):
    dtype = keras.backend.standardize_dtype(values.dtype)
    if is_half(dtype):
        values = ops.cast(values, "float32")
    integer, _, magnitude, nan = integer_type(dtype)
    bits = lax.bitcast_convert_type(values, integer)
    return ops.minimum(ops.bitwise_and(bits, magnitude), nan)


def keep_largest(values, num_pruned):
    return _keep_largest(ops.convert_to_tensor(values), ops.cast(num_pruned, "int32"))


def _count(conditions):
    ones = [ops.cast(condition, "int32") for condition in conditions]
    zeros = [ops.cast(0, "int32")] * len(ones)
    return lax.reduce(ones, zeros, _add, tuple(range(ones[0].ndim)))


def _add(sums, others):
    return [a + b for a, b in zip(sums, others, strict=True)]


@jax.jit  # inlined inside a compiled step
def _keep_largest(values, num_pruned):
    primitives = xla_selection.Primitives(magnitude_bits, lax.optimization_barrier, _count)
    return xla_selection.keep_largest(values, num_pruned, primitives)


# Steps


def outside_graph(function):
    return function


def read_step(iterations):
    step = ops.copy(iterations)
    return step if isinstance(step, jax.core.Tracer) else int(step)


def loop_per_weight():
    # A GPU idles at the start of each loop until the host has read the condition. So use a single
    # loop, and only for the masks: it would copy weights, and masking them afterwards is cheap.
    return _platform() != "gpu"


def _platform():
    return jax.default_backend()


def run_if(due, function, changed, read=()):
    """Runs a function once or not at all.

    This is a loop because XLA updates a loop's variables in place, but copies what passes through a
    conditional.

    Args:
        due: Scalar bool tensor.
        function: Function without arguments that assigns to variables.
        changed: List of the variables that it assigns to.
        read: List of the variables that it only reads.
    """
    constants = [(variable, ops.convert_to_tensor(variable)) for variable in read]

    def body(i, values):
        state = [*zip(changed, values, strict=True), *constants]
        with keras.StatelessScope(state_mapping=state) as scope:
            function()
        return [scope.get_current_value(variable) for variable in changed]

    values = [ops.convert_to_tensor(variable) for variable in changed]
    values = ops.fori_loop(0, ops.cast(due, "int32"), body, values)
    for variable, value in zip(changed, values, strict=True):
        variable.assign(value)


def opaque(*tensors):
    """Hides tensors' values from XLA, which compiles programs with different constants anew."""
    return lax.optimization_barrier(tensors)


# Assignments


def update(variable, function, other, strategy=None):
    """Assigns `function(value, value of other)` to a variable."""
    del strategy
    variable.assign(function(ops.convert_to_tensor(variable), ops.convert_to_tensor(other)))


def zero(variable, mask, unless=None, strategy=None):
    """Zeros a variable where its mask is `False`, unless the scalar bool tensor `unless` is true.

    XLA fuses this into the optimizer's own update, so it needs no extra pass over the weights.
    """

    def zeroed(values, mask):
        if unless is not None:
            mask = ops.logical_or(mask, unless)
        return ops.where(mask, values, ops.zeros((), values.dtype))

    update(variable, zeroed, mask, strategy)


def mask_initializer(layout):
    # NumPy makes the ones, because JAX would compile a program per shape.
    return "ones" if layout else _ones


def _ones(shape, dtype):
    return ops.convert_to_tensor(np.ones(shape, dtype), dtype)


# Files


def as_state(array):
    return array
