"""What the fastest kernels were found to be on this machine, kept for the next process."""

import functools
import hashlib
import json
import pathlib

import llvmlite.binding
import numba

from keras_trim.atomic import replace_file
from keras_trim.inference.kernels.program import run
from keras_trim.inference.kernels.vector import LANES

_MOST = 1 << 14  # choices in a file; a network has some hundred
_MOST_BYTES = 1 << 22  # of a file


class Choices:
    """Which of several ways was the fastest, by what is computed.

    Args:
        path: Path of a file that keeps them, or None. One that cannot be read counts as empty, and
            one that cannot be written is left out: all that is lost is the time to measure again.
    """

    def __init__(self, path=None):
        self._path = pathlib.Path(path) if path else None
        # Digest of what is computed and of the ways -> number of a way.
        self._found, self._new = _read(self._path), {}

    @classmethod
    def of_this_machine(cls):
        """Those kept beside the compiled kernels; none if these are not kept."""
        folder = run.stats.cache_path
        return cls(pathlib.Path(folder, f"choices-{_environment()}.json") if folder else None)

    def find(self, likeness, ways):
        """The fastest way, or None if that is not known.

        Args:
            likeness: What the ways have in common: of a `repr` that is the same in any process.
            ways: List. As `likeness`.
        """
        digest = _digest(likeness, ways)
        number = self._new.get(digest, self._found.get(digest, len(ways)))
        return ways[number] if number < len(ways) else None

    def add(self, likeness, ways, way):
        """Notes which way is the fastest."""
        self._new[_digest(likeness, ways)] = ways.index(way)

    def save(self):
        """Adds what is new to the file."""
        if not self._new or self._path is None:
            return
        self._found = _read(self._path) | self._new  # other processes may have written meanwhile
        self._new = {}
        newest = dict(list(self._found.items())[-_MOST:])
        try:
            with replace_file(self._path) as file:
                file.write(json.dumps(newest).encode())
        except OSError:
            pass


def _read(path):
    if path is None:
        return {}
    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        found = json.loads(path.read_bytes())
        return {key: i for key, i in found.items() if type(i) is int and i >= 0}
    except (AttributeError, OSError, RecursionError, ValueError):  # no file, or nothing of ours
        return {}


def _digest(likeness, ways):
    return hashlib.blake2b(repr((likeness, ways)).encode(), digest_size=12).hexdigest()


@functools.cache
def _environment():
    """A digest of all that times depend on: the processor, the compiler and the kernels."""
    digest = hashlib.blake2b(digest_size=8)
    processor = numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name()
    parts = processor, numba.config.CPU_FEATURES, LANES, numba.__version__, llvmlite.__version__
    digest.update(repr(parts).encode())
    for path in sorted(pathlib.Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
