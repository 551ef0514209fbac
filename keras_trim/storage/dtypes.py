"""The data types that a file may hold: their names and the layout of their bits."""

import functools
import typing

import ml_dtypes
import numpy as np

_FLOATS_8 = ("float8_e4m3fn", "float8_e5m2")
_INTEGERS_4 = ("int4", "uint4")
_NUMPY = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)

DTYPES = {name: np.dtype(name) for name in _NUMPY}
DTYPES |= {
    name: np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", *_FLOATS_8, *_INTEGERS_4)
}


class FloatBits(typing.NamedTuple):
    """A float: sign (1 bit), exponent, mantissa, from the highest bit to the lowest."""

    exponent_bits: int
    mantissa_bits: int


FLOATS = {
    "float16": FloatBits(5, 10),
    "bfloat16": FloatBits(8, 7),
    "float32": FloatBits(8, 23),
    "float64": FloatBits(11, 52),
}

# Text of fixed width, as NumPy stores it: `S5` is five bytes, `U5` five code points of UTF-32.
_MAX_TEXT_WIDTH = 1 << 20


def dtype_name(dtype):
    """String: a file's name for a NumPy dtype, or `None` if files cannot hold that dtype."""
    dtype = np.dtype(dtype)
    if dtype.kind in "SU":
        width = dtype.itemsize // (4 if dtype.kind == "U" else 1)
        return f"{dtype.kind}{width}" if 1 <= width <= _MAX_TEXT_WIDTH else None
    return dtype.name if DTYPES.get(dtype.name) == dtype.newbyteorder("=") else None


@functools.lru_cache(maxsize=256)
def parse_dtype(name):
    """The `numpy.dtype` of a name, little-endian, or `None` if the name is unknown."""
    if name in DTYPES:
        return little_endian(DTYPES[name])
    if name[:1] in ("S", "U") and name[1:].isascii() and name[1:].isdigit() and len(name) < 9:
        width = int(name[1:])
        if name == f"{name[0]}{width}" and 1 <= width <= _MAX_TEXT_WIDTH:
            return np.dtype(f"<{name}")
    return None


def little_endian(dtype):
    """The dtype in the byte order of files. Dtypes of ml_dtypes have no byte order to set."""
    return dtype.newbyteorder("<") if dtype.isbuiltin == 1 or dtype.kind in "SU" else dtype


def native_dtype(name):
    """The `numpy.dtype` of a known name, in this machine's byte order."""
    return DTYPES.get(name) or np.dtype(f"={name}")
