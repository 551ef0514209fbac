"""Counts the zeros of weights on the devices that hold them."""

import functools
import math

import numpy as np

from keras_trim.backend import BACKEND
from keras_trim.hosts import to_numpy

# The largest int32 sum.
_MAX_SUM = 2**31 - 1


def count_zeros(variables):
    """Counts zeros. A weight that is split among devices is counted there instead of gathered.

    If processes share a weight, all of them must call this.

    Args:
        variables: List of Keras variables of any dtype. `False` counts as zero.

    Returns:
        List of integers.
    """
    counts = _reduce(_count_on_devices, _count_on_host, variables)
    return [int(count.sum(dtype="int64")) for count in counts]


def count_nonzero_outside(variables, masks):
    """Counts the weights of each variable that are not zero although their mask is `False`.

    Args:
        variables: List of Keras variables.
        masks: List of Keras variables of the same shapes and layouts. Of any dtype: 0 is `False`.

    Returns:
        List of integers.
    """
    counts = _reduce(_count_outside_on_devices, _count_outside_on_host, variables, masks)
    return [int(count.sum(dtype="int64")) for count in counts]


def smallest_magnitudes(variables):
    """Finds each variable's smallest nonzero magnitude.

    Args:
        variables: List of Keras variables.

    Returns:
        List of floats, 0.0 for variables that are all zero.
    """
    smallest = _reduce(_smallest_on_devices, _smallest_on_host, variables)
    return [float(value) if math.isfinite(value) else 0.0 for value in smallest]


def _reduce(on_devices, on_host, *variables):
    """Applies `on_devices` or `on_host` to each variable. Returns NumPy arrays or scalars.

    With several lists of variables, the functions get one of each. NumPy works on whatever a
    device has all of: JAX would compile a program for each shape.
    """
    values = [[variable.value for variable in each] for each in zip(*variables, strict=True)]
    results, meshes = {}, {}
    for index, (first, *_) in enumerate(values):
        if _is_split(first):
            meshes.setdefault(first.sharding.mesh, []).append(index)
        else:
            results[index] = on_host(*map(to_numpy, values[index]))
    for mesh, indices in meshes.items():
        reduced = _program(on_devices, mesh)([values[index] for index in indices])
        results |= zip(indices, map(np.asarray, reduced), strict=True)
    return [results[index] for index in range(len(values))]


def _is_split(value):
    """Whether a value is split over devices, so that none holds all of it."""
    if BACKEND != "jax" or value.is_fully_replicated or value.size == 0:
        return False
    import jax

    return isinstance(value.sharding, jax.sharding.NamedSharding)


@functools.cache
def _program(on_devices, mesh):
    """Compiles one program for all weights: one per weight would take seconds for a large model."""
    import jax

    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(lambda values: [on_devices(*each) for each in values], out_shardings=replicated)


def _count_on_devices(value):
    return _sum_on_devices(value == 0)


def _sum_on_devices(condition):
    import jax.numpy as jnp

    # Sum the whole weight if an int32 can hold it. Otherwise sum rows, and NumPy adds them up.
    axes = None if condition.size <= _MAX_SUM else tuple(range(1, condition.ndim))
    return jnp.sum(condition, axis=axes, dtype="int32")


def _count_on_host(array):
    return np.int64(array.size - np.count_nonzero(array))


def _count_outside_on_devices(value, mask):
    return _sum_on_devices((value != 0) & (mask == 0))


def _count_outside_on_host(array, mask):
    return np.int64(np.count_nonzero((array != 0) & (mask == 0)))


def _smallest_on_devices(value):
    import jax.numpy as jnp

    magnitudes = jnp.abs(value.astype("float32"))
    return jnp.min(jnp.where(magnitudes > 0, magnitudes, jnp.inf))


def _smallest_on_host(array):
    magnitudes = np.abs(array.astype("float32"))
    return np.min(magnitudes, where=magnitudes > 0, initial=np.inf)
