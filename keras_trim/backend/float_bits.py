"""Floats read as integers that order as their magnitudes do: what each dtype needs for it."""

# The integer type, its bits without the sign, the mask of the sign, and the smallest NaN.
_INT32 = ("int32", 31, 0x7FFF_FFFF, 0x7F80_0001)
_INT64 = ("int64", 63, 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0001)


def integer_type(dtype):
    """Tuple of name, bits, mask of the sign and smallest NaN, for float32 or float64."""
    return _INT64 if dtype == "float64" else _INT32


def is_half(dtype):
    """Whether values are widened to float32 first, which is exact."""
    return dtype in ("float16", "bfloat16")
