"""Maps Keras's dtypes to the two that programs compute with: float32 and int32."""

import numpy as np

WIDE = ("int64", "uint64", "uint32")  # hold more than int32


def is_float(dtype):
    return "float" in dtype


def is_number(dtype):
    """Whether programs can hold values of a dtype: real numbers, not complex ones or strings."""
    return is_float(dtype) or "int" in dtype or dtype == "bool"


def stored(dtype):
    """The dtype that represents a Keras dtype within a program."""
    return "float32" if is_float(dtype) else "int32"


def as_numpy(dtype):
    """The NumPy dtype with this name."""
    if dtype != "bfloat16":
        return np.dtype(dtype)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)
