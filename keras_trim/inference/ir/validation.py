"""Checks the fields of operations, because files are not trusted."""

import dataclasses

import numpy as np


def require(condition, message):
    """Raises ValueError unless a condition holds."""
    if not condition:
        raise ValueError(message)


def require_types(operation):
    """Raises ValueError unless each field of an operation has its declared type.

    Float fields may hold integers, too.
    """
    for field in dataclasses.fields(operation):
        value, declared = getattr(operation, field.name), field.type
        if declared is float:
            require_number(value)
        elif declared is bool:
            require(type(value) is bool, f"{field.name} must be a boolean")
        else:
            require(isinstance(value, declared), f"{field.name} is of another type")


def require_weights(array, *shape):
    """Raises ValueError unless an array is float32 and has this shape; None is any size."""
    fits = (
        isinstance(array, np.ndarray)
        and array.dtype == np.float32
        and array.ndim == len(shape)
        and all(n is None or n == size for n, size in zip(shape, array.shape, strict=True))
    )
    require(fits, f"weights must be float32 of shape {shape}")


def require_integers(values, count, least):
    """Raises ValueError unless `values` has `count` integers from `least` up to 2**24 - 1."""
    fits = (
        isinstance(values, tuple)
        and (count is None or len(values) == count)
        and all(type(n) is int and least <= n < 1 << 24 for n in values)
    )
    require(fits, f"expected {count} integers of at least {least}. Received: {values!r:.100}")


def require_padding(padding):
    """Raises ValueError unless `padding` has a valid padding for each of two axes."""
    require(isinstance(padding, tuple) and len(padding) == 2, "padding must have two axes")
    for axis in padding:
        if axis not in ("valid", "same", "causal"):
            require_integers(axis, 2, -(1 << 24))


def require_number(value):
    """Raises ValueError unless a value is a float, or an integer of at most 63 bits."""
    is_number = type(value) is float or (type(value) is int and abs(value) < 1 << 63)
    require(is_number, f"expected a number. Received: {value!r:.100}")
