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


def smallest_magnitudes(variables):
    """Finds each variable's smallest nonzero magnitude.

    Args:
        variables: List of Keras variables.

    Returns:
        List of floats, 0.0 for variables that are all zero.
    """
    smallest = _reduce(_smallest_on_devices, _smallest_on_host, variables)
    return [float(value) if math.isfinite(value) else 0.0 for value in smallest]


def _reduce(on_devices, on_host, variables):
    """Applies `on_devices` or `on_host` to each variable. Returns NumPy arrays or scalars."""
    values = [variable.value for variable in variables]
    results, meshes = {}, {}
    for index, value in enumerate(values):
        if _is_split(value):
            meshes.setdefault(value.sharding.mesh, []).append(index)
        else:
            results[index] = on_host(to_numpy(value))
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
    return jax.jit(lambda values: [on_devices(value) for value in values], out_shardings=replicated)


def _count_on_devices(value):
    import jax.numpy as jnp

    # Sum the whole weight if an int32 can hold it. Otherwise sum rows, and NumPy adds them up.
    axes = None if value.size <= _MAX_SUM else tuple(range(1, value.ndim))
    return jnp.sum(value == 0, axis=axes, dtype="int32")


def _count_on_host(array):
    return np.int64(array.size - np.count_nonzero(array))


def _smallest_on_devices(value):
    import jax.numpy as jnp

    magnitudes = jnp.abs(value.astype("float32"))
    return jnp.min(jnp.where(magnitudes > 0, magnitudes, jnp.inf))


def _smallest_on_host(array):
    magnitudes = np.abs(array.astype("float32"))
    return np.min(magnitudes, where=magnitudes > 0, initial=np.inf)
