"""Pruning on TensorFlow: eager, in graphs, with XLA, and on the replicas of a strategy."""

import contextlib
import functools

import keras
import tensorflow as tf
from keras import ops

from keras_trim.backend import xla_selection
from keras_trim.backend.float_bits import integer_type, is_half

CATCHES_UP_EARLY = False  # weights only change after the step, where replicas are merged


# Selection


def magnitude_bits(values):
    dtype = keras.backend.standardize_dtype(values.dtype)
    if is_half(dtype):
        values = ops.cast(values, "float32")
    integer, _, magnitude, nan = integer_type(dtype)
    return ops.minimum(ops.bitwise_and(tf.bitcast(values, integer), magnitude), nan)


def keep_largest(values, num_pruned):
    values = tf.convert_to_tensor(values)
    program = _keep_largest(tuple(values.shape), values.dtype.name)
    return program(values, ops.cast(num_pruned, "int32"))


@functools.cache
def _keep_largest(shape, dtype):
    # Concrete functions, because TensorFlow warns of a function that it traces for a fifth shape.
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    def count(conditions):
        ones = [ops.cast(condition, "int32") for condition in conditions]
        zeros = [ops.cast(0, "int32")] * len(ones)
        axes = list(range(len(ones[0].shape)))
        return gen_xla_ops.xla_variadic_reduce_v2(ones, zeros, axes, _adder(len(ones)))

    primitives = xla_selection.Primitives(
        magnitude_bits, gen_xla_ops.xla_optimization_barrier, count
    )
    function = tf.function(
        lambda values, num_pruned: xla_selection.keep_largest(values, num_pruned, primitives),
        jit_compile=True,
        autograph=False,
    )
    return function.get_concrete_function(tf.TensorSpec(shape, dtype), tf.TensorSpec((), "int32"))


@functools.cache
def _adder(count):
    def add(*values):
        return [a + b for a, b in zip(values[:count], values[count:], strict=True)]

    scalars = [tf.TensorSpec((), "int32")] * (2 * count)
    return tf.function(add, autograph=False).get_concrete_function(*scalars)


# Steps


def outside_graph(function):
    return function


def read_step(iterations):
    step = ops.copy(iterations)  # copy it now: TensorFlow reads a variable only on use
    return int(step) if tf.executing_eagerly() else step


def loop_per_weight():
    return False


def run_if(due, function, changed, read=()):
    """Runs a function once or not at all. The graph tracks the variables it uses."""
    del changed, read

    def body(i):
        function()
        return i + 1

    tf.while_loop(lambda i: i < tf.cast(due, "int32"), body, [0])


def opaque(*tensors):
    return tensors


# Assignments


def update(variable, function, other, strategy):
    """Assigns `function(value, value of other)` to a variable, on every replica."""
    strategy.extended.update(
        _native(variable),
        lambda variable, other: variable.assign(
            function(tf.convert_to_tensor(variable), tf.convert_to_tensor(other))
        ),
        args=(_native(other),),
        group=False,
    )


def _native(variable):
    return variable.value if isinstance(variable, keras.Variable) else variable


def zero(variable, mask, unless=None, strategy=None):
    """Zeros a variable where its mask is `False`, on every replica."""
    del unless

    def zeroed(values, mask):
        # This gives zero for `False`, even for NaN. `tf.where` takes twice as long without XLA.
        return tf.math.multiply_no_nan(values, tf.cast(mask, values.dtype))

    update(variable, zeroed, mask, strategy)


def assign_last(variable, value, after, strategy):
    """Assigns a value in the graph, once the variables `after` have theirs.

    When data of unknown length ends, TensorFlow cancels a running step. Parts that do not depend on
    the data, such as the step counter, may already have run by then.
    """
    with tf.control_dependencies([tf.convert_to_tensor(_native(each)) for each in after]):
        update(variable, lambda _, new: new, tf.identity(value), strategy)


# Replicas


def strategy_of(optimizer):
    """Returns the `tf.distribute.Strategy` in which an optimizer was created."""
    return optimizer._distribution_strategy


def current_strategy():
    return tf.distribute.get_strategy()


def strategy_scope(optimizer):
    strategy = getattr(optimizer, "_distribution_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def on_all_replicas(function, strategy):
    """Calls a function once for all replicas, when each of them has come this far."""
    tf.__internal__.distribute.interim.maybe_merge_call(lambda _: function(), strategy)


def placed_like(variable, strategy):
    """Returns a context in which new variables are placed on the devices of `variable`."""
    return strategy.extended.colocate_vars_with(variable.value)


def mask_initializer(layout):
    del layout
    return "ones"


# Files


def as_state(array):
    return array
