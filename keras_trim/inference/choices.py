"""What the fastest kernels were found to be on this machine, kept for the next process."""

import functools
import hashlib
import json

from keras_trim.inference import caches

_MOST = 1 << 14  # choices in a file; a network has some hundred


class Choices:
    """Which of several ways was the fastest, by what is computed.

    Args:
        name: String. The file of the cache that keeps them, or None. One that cannot be read counts
            as empty, and one that cannot be written is left out: all that is lost is the time to
            measure again.
    """

    def __init__(self, name=None):
        self._name = name
        # Digest of what is computed and of the ways -> number of a way.
        self._found, self._new = _read(name), {}

    @classmethod
    def of_this_machine(cls):
        """Those kept beside the compiled kernels, for the code that makes programs."""
        return cls(f"choices-{_environment()}")

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
        if not self._new or self._name is None:
            return
        self._found = _read(self._name) | self._new  # other processes may have written meanwhile
        self._new = {}
        newest = dict(list(self._found.items())[-_MOST:])
        caches.write(self._name, json.dumps(newest).encode())


def _read(name):
    content = None if name is None else caches.read(name)
    try:
        found = json.loads(content or b"{}")
        return {key: i for key, i in found.items() if type(i) is int and i >= 0}
    except (AttributeError, RecursionError, ValueError):  # nothing of ours
        return {}


def _digest(likeness, ways):
    return hashlib.blake2b(repr((likeness, ways)).encode(), digest_size=12).hexdigest()


@functools.cache
def _environment():
    parts = caches.sources(""), caches.sources("operations")
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
