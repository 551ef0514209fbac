"""Quantizes weights to fewer bits and measures the error."""

import numpy as np

from keras_trim.storage.dtypes import DTYPES, FLOATS, dtype_name

KINDS = ("float16", "bfloat16", "int8")

_INT8_MAX = 127


def check_kind(kind):
    """Raises `ValueError` unless `kind` is `None` or one of `KINDS`."""
    if kind is not None and kind not in KINDS:
        raise ValueError(
            f"`values` must be None (lossless) or one of {', '.join(map(repr, KINDS))}. "
            f"Received: values={kind!r}"
        )


def quantize(values, kind):
    """Quantizes an array: rounds it to fewer bits.

    Args:
        values: Array of floats.
        kind: String. One of `KINDS`.

    Returns:
        Tuple of the quantized array, its scales and their axis (both `None` except for `"int8"`).
        `None` if quantization would save nothing, or if `kind` cannot represent some value.
    """
    name = dtype_name(values.dtype)
    if name not in FLOATS or DTYPES[kind].itemsize >= values.itemsize or not values.size:
        return None
    if kind == "int8":
        return _quantize_int8(values)
    with np.errstate(over="ignore"):
        rounded = values.astype(DTYPES[kind])
    if not np.isfinite(rounded).all():  # some value overflows, or is not finite itself
        return None
    return rounded, None, None


def dequantize(values, dtype, scales=None, axis=None):
    """Inverts `quantize`, up to rounding.

    Args:
        values: Array.
        dtype: `numpy.dtype` to return.
        scales: Array of rank 1 to multiply by, or `None`.
        axis: Integer. The axis of `values` that the scales run along.

    Returns:
        Array of `dtype`. The product is computed in float32, or in float64 if `dtype` is float64.
    """
    if scales is None:
        with np.errstate(all="ignore"):
            return values.astype(dtype)
    shape = [1] * values.ndim
    shape[axis] = -1
    wide = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    with np.errstate(all="ignore"):
        product = values.astype(wide)
        product *= scales.astype(wide).reshape(shape)
        return product.astype(dtype, copy=False)


def _quantize_int8(values):
    axis = _channel_axis(values.shape)
    others = tuple(other for other in range(values.ndim) if other != axis)
    with np.errstate(over="ignore"):
        wide = values.astype(np.float32)
    largest = np.max(np.abs(wide), axis=others, keepdims=True)
    if not np.isfinite(largest).all():
        return None
    scales = _round_up(largest / np.float32(_INT8_MAX))
    with np.errstate(over="ignore"):
        restored = (scales.astype(np.float32) * np.float32(_INT8_MAX)).astype(values.dtype)
    if not np.isfinite(restored).all():  # rounding the scale up leads out of range
        return None
    steps = np.rint(wide / scales.astype(np.float32))
    return np.clip(steps, -_INT8_MAX, _INT8_MAX).astype(np.int8), scales.reshape(-1), axis


def _round_up(scales):
    """Rounds up to bfloat16: half the bytes of float32, for steps at most 1 % larger."""
    bits = np.maximum(scales, np.finfo(np.float32).tiny).view(np.uint32)
    return ((bits + np.uint32(0xFFFF)) >> 16).astype(np.uint16).view(DTYPES["bfloat16"])


def _channel_axis(shape):
    """Returns the last axis longer than 1: outputs, or the channels of a depthwise kernel."""
    return max((axis for axis, size in enumerate(shape) if size > 1), default=len(shape) - 1)


def largest_error(values, restored):
    """Float: the largest absolute difference between finite values."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(values.astype(np.float64) - restored.astype(np.float64))
    return float(np.max(difference, initial=0.0, where=np.isfinite(values)))
