"""The fastest candidates found on this machine, cached for later processes."""

import functools
import hashlib
import json

from keras_trim.inference import caches

_MOST = 1 << 14  # choices in a file; a network has a few hundred


class TuningCache:
    """The fastest of several candidates, by workload key.

    Args:
        name: String or None. The file that stores them. An unreadable file counts as empty, and an
            unwritable one is skipped: the only loss is the time to measure again.
    """

    def __init__(self, name=None):
        self._name = name
        # Digest of the workload key and the candidates -> index of the fastest.
        self._found, self._new = _read(name), {}

    @classmethod
    def of_this_machine(cls):
        """Returns the cache beside the compiled kernels, for this version of the lowering code."""
        return cls(f"choices-{_environment()}")

    def find(self, workload, candidates):
        """Returns the fastest candidate, or None if it is not known.

        Args:
            workload: Workload key. Its `repr` must be the same in any process.
            candidates: List, likewise.
        """
        digest = _digest(workload, candidates)
        number = self._new.get(digest, self._found.get(digest, len(candidates)))
        return candidates[number] if number < len(candidates) else None

    def add(self, workload, candidates, candidate):
        """Records the fastest candidate."""
        self._new[_digest(workload, candidates)] = candidates.index(candidate)

    def save(self):
        """Adds new entries to the file."""
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
    except (AttributeError, RecursionError, ValueError):  # not written by this class
        return {}


def _digest(workload, candidates):
    return hashlib.blake2b(repr((workload, candidates)).encode(), digest_size=12).hexdigest()


@functools.cache
def _environment():
    parts = caches.sources("ir", "lowering", "program")
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
