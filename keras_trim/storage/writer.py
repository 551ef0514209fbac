"""Writes a file in one pass: prefix, streams, header, trailer."""

import dataclasses
import zlib

import numpy as np

from keras_trim.storage import dtypes
from keras_trim.storage.chunks import CHUNK_SIZE, encode_chunk
from keras_trim.storage.entries import ArrayEntry, FileEntry, Header, name_problem, shape_problem
from keras_trim.storage.frame import MAGIC, PREFIX, TRAILER, VERSION
from keras_trim.storage.header import MAX_HEADER, dump_header
from keras_trim.storage.order import storage_order
from keras_trim.storage.streams import StreamEncoder

_PIECE_SIZE = 1 << 20


class Writer:
    """Writes a file from front to back.

    Args:
        file: Binary file object, open for writing.
    """

    def __init__(self, file):
        self._file = file
        self._encoder = StreamEncoder()
        self._offset = 0
        self._arrays, self._files = [], []
        self._names = set()
        self._write(PREFIX.pack(MAGIC, VERSION, 0))

    @property
    def arrays(self):
        """List of `ArrayEntry`: the arrays written so far."""
        return self._arrays

    def write_array(self, name, values, decoded_dtype=None, scales=None, scale_axis=None):
        """Writes an array. All arrays come before all files.

        Args:
            name: String.
            values: `numpy.ndarray`.
            decoded_dtype: String. The dtype that a reader returns. Default: the dtype of `values`.
            scales: `numpy.ndarray` of rank 1, by which a reader multiplies the values, or `None`.
            scale_axis: Integer. The axis of `values` that the scales run along.

        Raises:
            ValueError: if the name, dtype or shape cannot be stored.
        """
        if name in self._names:
            raise ValueError(f"Two arrays have the same name: rename one. Received: {name!r:.100}")
        self._names.add(name)
        entry = self._write_values(name, values)
        if decoded_dtype is not None:
            entry = dataclasses.replace(entry, decoded_dtype=decoded_dtype)
        if scales is not None:
            scales = self._write_values(name, scales)
            entry = dataclasses.replace(entry, scales=scales, scale_axis=scale_axis)
        self._arrays.append(entry)

    def _write_values(self, name, values):
        dtype = dtypes.dtype_name(values.dtype)
        if dtype is None:
            raise ValueError(
                f"This dtype cannot be stored. Convert the array first. Received: {name} of "
                f"dtype {values.dtype}"
            )
        problem = name_problem(name) or shape_problem(values.shape, values.itemsize)
        if problem:
            raise ValueError(
                f"An array cannot be stored: it {problem}. Received: {name!r:.100} of shape "
                f"{values.shape}"
            )
        axes = storage_order(values)
        # This copies only if the axes or the bytes need reordering.
        flat = np.asarray(values.transpose(axes), dtypes.parse_dtype(dtype), order="C").reshape(-1)
        chunks = []
        for start in range(0, len(flat), CHUNK_SIZE):
            chunk, streams = encode_chunk(flat[start : start + CHUNK_SIZE], self._encoder)
            checksum = 0
            for stream in streams:
                self._write(stream)
                checksum = zlib.crc32(stream, checksum)
            chunks.append(dataclasses.replace(chunk, crc32=checksum))
        size = CHUNK_SIZE if len(chunks) > 1 else max(len(flat), 1)
        return ArrayEntry(name, dtype, values.shape, axes, size, chunks, dtype)

    def write_file(self, name, data):
        """Writes a file into this one.

        Args:
            name: String. A relative path with `/` between its parts.
            data: Bytes.

        Raises:
            ValueError: if the name cannot be stored.
        """
        problem = name_problem(name, is_path=True)
        if problem:
            raise ValueError(f"A file cannot be stored: it {problem}. Received: {name!r:.100}")
        pieces = []
        for start in range(0, len(data), _PIECE_SIZE):
            stored = self._encoder.encode(data[start : start + _PIECE_SIZE], is_text=True)
            self._write(stored)
            pieces.append((len(stored), zlib.crc32(stored)))
        self._files.append(FileEntry(name, len(data), _PIECE_SIZE, pieces))

    def finish(self, metadata):
        """Writes the header and the trailer.

        Args:
            metadata: Dict of strings.
        """
        header = dump_header(Header(self._arrays, self._files, metadata))
        if len(header) > MAX_HEADER:
            raise ValueError(f"The header exceeds {MAX_HEADER} bytes. Received: {len(header)}")
        offset, stored = self._offset, self._encoder.encode(header, is_text=True)
        self._write(stored)
        checksum = zlib.crc32(stored)
        self._write(TRAILER.pack(offset, len(stored), len(header), checksum, VERSION, 0, MAGIC))

    def _write(self, data):
        self._file.write(data)
        self._offset += len(data)
