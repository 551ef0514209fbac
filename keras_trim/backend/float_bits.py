"""Constants for reading floats as integers that sort by magnitude, per dtype."""

# The integer type, its number of bits without the sign, a mask without the sign, the smallest NaN.
_INT32 = ("int32", 31, 0x7FFF_FFFF, 0x7F80_0001)
_INT64 = ("int64", 63, 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0001)


def integer_type(dtype):
    """Returns name, bits, magnitude mask and smallest NaN, for float32 or float64."""
    return _INT64 if dtype == "float64" else _INT32


def is_half(dtype):
    """Whether values are cast to float32 first, which is exact."""
    return dtype in ("float16", "bfloat16")
