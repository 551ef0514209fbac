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


def converted(array, dtype, saturates=False):
    """The array in an integer or boolean dtype.

    Args:
        array: Array.
        dtype: String.
        saturates: Boolean. Whether floats beyond the range of the dtype become its limits and NaN
            becomes 0, as on JAX. Otherwise they wrap, as in NumPy.
    """
    dtype = np.dtype(dtype)
    if saturates and array.dtype.kind == "f" and dtype.kind != "b":
        limits = np.iinfo(dtype)
        array = np.clip(
            np.nan_to_num(np.float64(array), posinf=np.inf, neginf=-np.inf), limits.min, limits.max
        )
    return array.astype(dtype)


def as_numpy(dtype):
    """The NumPy dtype with this name."""
    if dtype != "bfloat16":
        return np.dtype(dtype)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)
