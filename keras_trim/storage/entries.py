"""What a file's header says of each array and each embedded file."""

import dataclasses
import math

from keras_trim.storage import dtypes

# Limits that a reader enforces.
MAX_RANK = 32
MAX_NAME = 4096
MAX_PART = 255  # bytes of each part of a path: what file systems allow


@dataclasses.dataclass(frozen=True)
class ArrayEntry:
    """An array's record in the header.

    Args:
        name: String.
        dtype: String. The dtype of the stored values.
        shape: Tuple of integers.
        axes: Tuple of integers. The order of axes, outermost first, in which values are stored.
        chunk_size: Integer. Values per chunk. The last chunk may have fewer.
        chunks: List of `Chunk`.
        decoded_dtype: String. The dtype that a reader returns; equal to `dtype` if lossless.
        scales: `ArrayEntry` of rank 1 that a reader multiplies the values by, or `None`.
        scale_axis: Integer. The axis of `shape` that `scales` run along, or `None`.
    """

    name: str
    dtype: str
    shape: tuple
    axes: tuple
    chunk_size: int
    chunks: list
    decoded_dtype: str
    scales: "ArrayEntry | None" = None
    scale_axis: int | None = None

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def decoded_bytes(self):
        return self.size * dtypes.parse_dtype(self.decoded_dtype).itemsize

    @property
    def own_bytes(self):
        """Integer: the number of the file's bytes that hold the values."""
        return sum(sum(chunk.stored) for chunk in self.chunks)

    @property
    def stored_bytes(self):
        """Integer: the number of the file's bytes that hold the values and their scales."""
        return self.own_bytes + (self.scales.stored_bytes if self.scales else 0)

    def chunk_lengths(self):
        """List of integers: the number of values in each chunk."""
        return _lengths(self.size, self.chunk_size)


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """An embedded file's record in the header.

    Args:
        name: String. A relative path with `/` between its parts.
        size: Integer. Bytes.
        piece_size: Integer. Bytes per piece. The last piece may have fewer.
        pieces: List of tuples of integers: the stored bytes and their CRC-32.
    """

    name: str
    size: int
    piece_size: int
    pieces: list

    @property
    def stored_bytes(self):
        return sum(stored for stored, _ in self.pieces)

    def piece_lengths(self):
        """List of integers: the number of bytes in each piece."""
        return _lengths(self.size, self.piece_size)


def _lengths(size, most):
    """Divides a size into parts of `most`, and a last one of what is left."""
    return [min(most, size - start) for start in range(0, size, most)]


@dataclasses.dataclass(frozen=True)
class Header:
    """The header.

    Args:
        arrays: List of `ArrayEntry`, in the order in which they are stored.
        files: List of `FileEntry`, stored after the arrays.
        metadata: Dict of strings.
    """

    arrays: list
    files: list
    metadata: dict


def name_problem(name, is_path=False):
    """Returns what is wrong with the name of an array (a file if `is_path`), or `None`."""
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME:
        return f"has no name of 1 to {MAX_NAME} characters"
    if any("\ud800" <= char <= "\udfff" for char in name):
        return "has a name that is no Unicode text"
    if is_path and (
        any(part in ("", ".", "..") for part in name.split("/"))
        or any(char in name for char in '\\:*?"<>|')
        or not name.isprintable()
        or any(len(part.encode()) > MAX_PART for part in name.split("/"))
    ):
        return "has a name that leads elsewhere"
    return None


def shape_problem(shape, itemsize):
    """Returns what is wrong with the shape of an array, or `None`."""
    if len(shape) > MAX_RANK:
        return f"has more than {MAX_RANK} axes"
    # NumPy counts empty axes as 1 in this limit, too.
    extent = math.prod(max(length, 1) for length in shape)
    return "is larger than any memory" if extent * itemsize >= 1 << 62 else None
