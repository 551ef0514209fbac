"""Reads a file in any order, and limits what it may decode to."""

import io
import itertools
import numbers
import os
import zlib

import numpy as np

from keras_trim.alignment import aligned_zeros
from keras_trim.storage import dtypes
from keras_trim.storage.chunks import decode_chunk, stream_sizes
from keras_trim.storage.errors import FormatError
from keras_trim.storage.frame import MAGIC, PREFIX, TRAILER, VERSION
from keras_trim.storage.header import MAX_HEADER, parse_header
from keras_trim.storage.quantization import dequantize
from keras_trim.storage.streams import StreamDecoder

# Zeros take almost no space, so a tiny file may really hold a large model. Contents that exceed
# both of these limits (bytes; multiples of the file's size) need the caller's consent.
FREE_BYTES = 1 << 30
FREE_FACTOR = 1000


def _other_kind(magic):
    """What a file is instead, by how it begins, and what reads it."""
    if magic.startswith(b"PK"):
        return "; a `.keras` archive is read by `keras.models.load_model`"
    if magic.startswith(b"\x89HDF"):
        return "; an HDF5 file (`.h5`) is read by `keras.models.load_model`"
    return ""


def _opened(path):
    """The binary file at a path, or the file itself that was passed."""
    if isinstance(path, (str, os.PathLike)):
        return open(path, "rb")
    # `open` would take an integer as a file descriptor.
    if not hasattr(path, "read") or not isinstance(path.read(0), bytes):
        raise ValueError(f"`path` must be a path or a binary file. Received: path={path!r}")
    if not path.seekable():
        raise ValueError(
            "`path` must be a file that can be read in any order: for a stream, pass "
            f"`io.BytesIO(stream.read())`. Received: path={path!r}"
        )
    return path


class Reader:
    """Reads a file. Opening it checks everything that can be checked without decoding data.

    Args:
        path: Path of the file, or a binary file object, which `close` closes.
        max_bytes: Integer. The most bytes that the contents may decode to. Default: 1 GiB or 1000
            times the size of the file, whichever is larger.

    Raises:
        FormatError: if the file is not of this format or is damaged.
        ValueError: if `path` is neither a path nor a binary file that can seek.
    """

    def __init__(self, path, max_bytes=None):
        if max_bytes is not None and not isinstance(max_bytes, numbers.Real):
            raise ValueError(f"`max_bytes` must be an integer. Received: max_bytes={max_bytes!r}")
        self._decoder = StreamDecoder()
        self._file = _opened(path)
        try:
            self.file_size = self._file.seek(0, io.SEEK_END)
            self.header = self._read_header()
            self._limit(max_bytes)
        except FormatError as error:
            self.close()
            raise FormatError(f"{error} Received: path={path}") from error.__cause__
        except BaseException:
            self._file.close()
            raise
        lengths = []
        for entry in self.header.arrays:
            lengths += [entry.stored_bytes]
        lengths += [entry.stored_bytes for entry in self.header.files]
        offsets = itertools.accumulate(lengths, initial=PREFIX.size)
        entries = [*self.header.arrays, *self.header.files]
        self._offsets = dict(zip(map(id, entries), offsets, strict=False))
        self._arrays = {entry.name: entry for entry in self.header.arrays}
        self._files = {entry.name: entry for entry in self.header.files}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._file.close()

    @property
    def arrays(self):
        """Dict: name -> `ArrayEntry`."""
        return self._arrays

    @property
    def files(self):
        """Dict: name -> `FileEntry`."""
        return self._files

    def read_array(self, name):
        """Returns the array of that name as a `numpy.ndarray`."""
        entry = self._arrays[name]
        offset = self._offsets[id(entry)]
        values = self._read_values(entry, offset)
        if entry.decoded_dtype == entry.dtype and entry.scales is None:
            return values
        scales = entry.scales and self._read_values(entry.scales, offset + entry.own_bytes)
        return dequantize(values, dtypes.DTYPES[entry.decoded_dtype], scales, entry.scale_axis)

    def _read_values(self, entry, offset):
        dtype = dtypes.parse_dtype(entry.dtype)
        flat = aligned_zeros(entry.size, dtype)
        start = 0
        for chunk, length in zip(entry.chunks, entry.chunk_lengths(), strict=True):
            stored = self._read_at(offset, sum(chunk.stored), chunk.crc32)
            offset += len(stored)
            streams, position = [], 0
            for mine, size in zip(
                chunk.stored, stream_sizes(chunk, length, dtype, entry.dtype), strict=True
            ):
                streams.append(self._decoder.decode(stored[position : position + mine], size))
                position += mine
            decode_chunk(chunk, streams, flat[start : start + length], entry.dtype)
            start += length
        shape = [entry.shape[axis] for axis in entry.axes]
        values = flat.reshape(shape).transpose(np.argsort(entry.axes))
        native = dtypes.native_dtype(entry.dtype)
        if values.flags.c_contiguous and native == dtype:
            return values
        ordered = aligned_zeros(entry.shape, native)
        ordered[...] = values
        return ordered

    def read_file(self, name):
        """Returns the file of that name as bytes."""
        entry = self._files[name]
        offset, pieces = self._offsets[id(entry)], []
        for (length, checksum), size in zip(entry.pieces, entry.piece_lengths(), strict=True):
            stored = self._read_at(offset, length, checksum)
            pieces.append(self._decoder.decode(stored, size, is_text=True))
            offset += length
        return b"".join(pieces)

    def _read_at(self, offset, length, checksum):
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) != length or zlib.crc32(data) != checksum:
            raise FormatError("The file is damaged: a checksum does not match.")
        return memoryview(data)

    def _read_header(self):
        if self.file_size < PREFIX.size + TRAILER.size:
            raise FormatError("This is no file of keras-trim, or it is cut off: it is too short.")
        self._file.seek(0)
        magic, version, reserved = PREFIX.unpack(self._file.read(PREFIX.size))
        if magic != MAGIC:
            raise FormatError(f"This is no file of keras-trim{_other_kind(magic)}.")
        if version != VERSION:
            raise FormatError(
                f"The file uses version {version} of the format, and this release reads version "
                f"{VERSION}. Install a newer keras-trim."
            )
        end = self.file_size - TRAILER.size
        self._file.seek(end)
        offset, stored, size, checksum, again, zero, magic = TRAILER.unpack(
            self._file.read(TRAILER.size)
        )
        if magic != MAGIC or again != version or zero or reserved or offset + stored != end:
            raise FormatError("The file is cut off or damaged: it does not end with a trailer.")
        if not PREFIX.size <= offset <= end or not stored <= size <= MAX_HEADER:
            raise FormatError("The file is damaged: its header has an impossible size.")
        text = self._decoder.decode(self._read_at(offset, stored, checksum), size, is_text=True)
        header = parse_header(text)
        total = sum(entry.stored_bytes for entry in (*header.arrays, *header.files))
        if PREFIX.size + total != offset:
            raise FormatError("The file is damaged: its parts do not add up to its size.")
        return header

    def _limit(self, max_bytes):
        if max_bytes is None:
            max_bytes = max(FREE_BYTES, FREE_FACTOR * self.file_size)
        self.max_bytes = max_bytes
        total = sum(entry.decoded_bytes for entry in self.header.arrays)
        # Scales take memory of their own, even if the array is empty.
        total += sum(entry.scales.decoded_bytes for entry in self.header.arrays if entry.scales)
        total += sum(entry.size for entry in self.header.files)
        if total > max_bytes:
            raise FormatError(
                f"The file of {self.file_size:,} bytes claims to hold {total:,} bytes, more than "
                f"the {max_bytes:,} allowed. If you trust it, raise `max_bytes`."
            )
