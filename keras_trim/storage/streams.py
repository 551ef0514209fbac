"""Byte streams: stored as they are, or Zstandard-compressed if that is smaller.

Texts (a model's configuration and the header) are compressed with a dictionary of typical texts.
Without it they would take a tenth of a small model's file.
"""

import functools
import pathlib
import pkgutil
import zlib

from keras_trim.storage.errors import FormatError

# Part of the format. tools/make_storage_dictionary.py made it.
DICTIONARY = pathlib.Path(__file__).with_name("dictionary.txt")
DICTIONARY_CRC32 = 0xF8BA87CB

# Bytes. Above this size, the slowest compression level is not worth its time.
_THOROUGH_BELOW = 1 << 12


def import_zstandard():
    """Returns the module `zstandard`.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import zstandard
    except ImportError as error:
        raise ImportError(
            f'.ktrim files need Zstandard: pip install "keras-trim[storage]". Received: {error}'
        ) from error
    return zstandard


@functools.cache
def _dictionary():
    zstd = import_zstandard()
    if DICTIONARY.exists():
        text = DICTIONARY.read_bytes()
    else:  # the package is inside an archive
        text = pkgutil.get_data(__package__, DICTIONARY.name)
    if zlib.crc32(text) != DICTIONARY_CRC32:  # git, for instance, may change line endings
        raise ImportError(
            "keras-trim is damaged: one of its files differs from the release. Reinstall it. "
            f"Received: {DICTIONARY}"
        )
    return zstd.ZstdCompressionDict(text, dict_type=zstd.DICT_TYPE_RAWCONTENT)


class StreamEncoder:
    """Compresses streams, each on its own.

    The shuffled bytes of weights are noise with a skewed distribution: entropy coding is all that
    helps, and chance matches cost bytes. So one compressor looks for almost no matches. Another is
    for streams that do repeat. Each stream keeps the smallest of both results and the raw data.
    """

    def __init__(self):
        zstd = import_zstandard()
        entropy = zstd.ZstdCompressionParameters(
            strategy=zstd.STRATEGY_FAST,
            window_log=17,
            hash_log=6,
            chain_log=6,
            search_log=1,
            min_match=7,
            target_length=0,
        )
        self._entropy = zstd.ZstdCompressor(compression_params=entropy)
        self._general = zstd.ZstdCompressor(level=3)
        self._thorough = zstd.ZstdCompressor(level=19)
        self._text = zstd.ZstdCompressor(level=19, dict_data=_dictionary())

    def encode(self, data, is_text=False):
        """Encodes a stream.

        Args:
            data: Bytes-like.
            is_text: Boolean. Whether the data is text (compressed with the dictionary).

        Returns:
            Bytes: one Zstandard frame if that is smaller, otherwise the data itself.
        """
        data = memoryview(data).cast("B")
        if not data:
            return b""
        if is_text:
            best = self._text.compress(data)
        elif len(data) <= _THOROUGH_BELOW:
            best = self._thorough.compress(data)
        else:
            best = self._entropy.compress(data)
            # If entropy coding saved nothing, the data is noise: matches will not help either.
            if len(best) < 0.97 * len(data):
                best = min(best, self._general.compress(data), key=len)
        return best if len(best) < len(data) else bytes(data)


class StreamDecoder:
    """Decodes streams of known size and never allocates more than that."""

    def __init__(self):
        self._zstd = import_zstandard()
        self._decompressor = self._zstd.ZstdDecompressor()
        self._text = self._zstd.ZstdDecompressor(dict_data=_dictionary())

    def decode(self, stored, size, is_text=False):
        """Returns the `size` bytes that `StreamEncoder.encode` was given.

        Args:
            stored: Bytes-like.
            size: Integer. A `stored` of this length is the data itself.
            is_text: Boolean. The value that was passed to `StreamEncoder.encode`.

        Raises:
            FormatError: if `stored` does not decode to exactly `size` bytes.
        """
        if len(stored) == size:
            return stored
        try:
            # Check the claimed size first: the library allocates it.
            claimed = self._zstd.get_frame_parameters(stored).content_size
            if claimed != size:
                raise FormatError(f"A compressed stream claims {claimed} bytes instead of {size}.")
            decompressor = self._text if is_text else self._decompressor
            data = decompressor.decompress(stored, max_output_size=size, allow_extra_data=False)
        except self._zstd.ZstdError as error:
            raise FormatError(f"A compressed stream is damaged ({error}).") from error
        if len(data) != size:
            raise FormatError(f"A compressed stream has {len(data)} bytes instead of {size}.")
        return data
