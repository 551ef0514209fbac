"""Compresses a `.keras` archive in a way that Keras still reads."""

import dataclasses
import os
import pathlib
import shutil
import zipfile
import zlib

from keras_trim.arguments import described, takes_named
from keras_trim.atomic import replace_file
from keras_trim.storage.result import compared

_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True, repr=False)
class CompressResult:
    """A compressed archive. It prints as a summary.

    Args:
        path: `pathlib.Path` of the compressed archive.
        old_bytes: Integer. Its size before.
        new_bytes: Integer. Its size after.
    """

    path: pathlib.Path
    old_bytes: int
    new_bytes: int

    def __repr__(self) -> str:
        return (
            f"{self.path}: {self.new_bytes:,} bytes instead of {self.old_bytes:,}, "
            f"{compared(self.new_bytes, self.old_bytes)}"
        )


@takes_named
def compress_keras(
    path: str | os.PathLike[str], output: str | os.PathLike[str] | None = None
) -> CompressResult:
    """Compresses a `.keras` archive; `keras.models.load_model` reads it without keras-trim.

    A `.keras` file is an uncompressed zip archive. This stores each file in it in the smallest way
    that Python's `zipfile` reads: deflate, bzip2 or uncompressed. The contents of the files do not
    change. A `.ktrim` file is smaller still.

    Args:
        path: Path of a `.keras` file.
        output: Path to write to, ending in `.keras`. By default this replaces `path` itself, once
            the new archive is complete and verified.

    Returns:
        `CompressResult`. `print` it for the sizes.

    Raises:
        ValueError: if `path` is not a `.keras` archive.
        OSError: if a file cannot be read or written. `path` is left unchanged.
    """
    given = {"path": path, "output": path if output is None else output}
    for name, each in given.items():
        if not isinstance(each, (str, os.PathLike)):
            raise ValueError(
                f"`{name}` must be the path of a `.keras` file. Received: {name}={described(each)}"
            )
    path, output = map(pathlib.Path, given.values())
    for name, each in (("path", path), ("output", output)):
        if each.suffix != ".keras":
            raise ValueError(
                f"`{name}` must end in `.keras`: load the model, and save it as such. "
                f"Received: {name}={each}"
            )
    old_bytes = path.stat().st_size
    methods = _smallest_methods(path)
    # The source is closed before it is replaced, if both are the same.
    with replace_file(output) as file, zipfile.ZipFile(path) as source:
        with zipfile.ZipFile(file, "w") as target:
            for member, method in zip(source.infolist(), methods, strict=True):
                _copy(source, member, target, method)
        _verify(source, file)
        new_bytes = file.seek(0, os.SEEK_END)
    return CompressResult(output, old_bytes, new_bytes)


def _copy(source, member, target, method):
    copied = zipfile.ZipInfo(member.filename, member.date_time)
    copied.external_attr = member.external_attr
    copied.compress_type = method
    copied.file_size = member.file_size
    with source.open(member) as reader, target.open(copied, "w") as writer:
        shutil.copyfileobj(reader, writer, _BLOCK)


def _smallest_methods(path):
    """Lists how to store each file of an archive.

    Raises:
        ValueError: if it is not a `.keras` archive, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as source:
            if "config.json" not in source.namelist():
                raise zipfile.BadZipFile("it has no config.json")
            return [_smallest_method(source, member) for member in source.infolist()]
    except Exception as error:  # each decompressor has its own; those of bz2 are `OSError`s
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"This is not a `.keras` archive ({error}). Received: {path}") from error


def _smallest_method(source, member):
    compressors = {zipfile.ZIP_DEFLATED: zlib.compressobj(9, wbits=-15)}
    try:
        import bz2
    except ImportError:  # Python was built without bz2
        pass
    else:
        compressors[zipfile.ZIP_BZIP2] = bz2.BZ2Compressor()
    sizes = {zipfile.ZIP_STORED: 0, **dict.fromkeys(compressors, 0)}
    with source.open(member) as reader:
        while block := reader.read(_BLOCK):
            sizes[zipfile.ZIP_STORED] += len(block)
            for method, compressor in compressors.items():
                sizes[method] += len(compressor.compress(block))
    for method, compressor in compressors.items():
        sizes[method] += len(compressor.flush())
    return min(sizes, key=sizes.get)


def _verify(source, file):
    """Reads the new archive back, which checks its checksums, and compares the contents."""
    with zipfile.ZipFile(file) as target:
        broken = target.testzip()
        pairs = zip(source.infolist(), target.infolist(), strict=True)
        same = all(
            (a.filename, a.CRC, a.file_size) == (b.filename, b.CRC, b.file_size) for a, b in pairs
        )
        if broken or not same:
            raise OSError(f"The compressed archive failed verification: {broken}")
