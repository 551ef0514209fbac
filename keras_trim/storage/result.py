"""What `save` reports about the file it wrote."""

import dataclasses
import pathlib


def compared(size, other):
    """String: how many times smaller or larger a size is than another one."""
    if not size or size <= other:
        return f"{other / max(size, 1):.1f} times smaller"
    return f"{size / max(other, 1):.1f} times larger"


@dataclasses.dataclass(frozen=True)
class SavedArray:
    """One array of a file.

    Args:
        name: String.
        shape: Tuple of integers.
        dtype: String. Its dtype when loaded.
        num_bytes: Integer. Bytes in memory.
        stored_bytes: Integer. Bytes in the file.
        largest_error: Float. The largest absolute change of a value; 0.0 if lossless.
        largest_value: Float. The largest magnitude, or 0.0 if lossless.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    num_bytes: int
    stored_bytes: int
    largest_error: float = 0.0
    largest_value: float = 0.0


@dataclasses.dataclass(frozen=True, repr=False)
class SaveResult:
    """A saved file. It prints as a summary.

    Args:
        path: `pathlib.Path`.
        file_bytes: Integer. Size of the file.
        arrays: List of `SavedArray`.
    """

    path: pathlib.Path
    file_bytes: int
    arrays: list[SavedArray]

    @property
    def num_bytes(self) -> int:
        """Integer: bytes of all arrays in memory."""
        return sum(array.num_bytes for array in self.arrays)

    @property
    def largest_error(self) -> float:
        """Float: the largest absolute change of any value; 0.0 if everything is lossless."""
        return max((array.largest_error for array in self.arrays), default=0.0)

    def __repr__(self) -> str:
        factor = compared(self.file_bytes, self.num_bytes)
        text = f"{self.path}: {self.file_bytes:,} bytes, {factor} than in memory"
        if not self.largest_error:
            return f"{text}; lossless"
        worst = max(self.arrays, key=lambda array: array.largest_error)
        return (
            f"{text}; values changed by {worst.largest_error:.3g} at most ({worst.name}, whose "
            f"largest is {worst.largest_value:.3g})"
        )
