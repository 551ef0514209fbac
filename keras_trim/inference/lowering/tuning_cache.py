"""What the fastest kernels were found to be on this machine, kept for the next process."""

import functools
import hashlib
import json

from keras_trim.inference import caches

_MOST = 1 << 14  # choices in a file; a network has some hundred


class TuningCache:
    """Which of several candidates was the fastest, by what is computed.

    Args:
        name: String. The file of the cache that keeps them, or None. One that cannot be read counts
            as empty, and one that cannot be written is left out: all that is lost is the time to
            measure again.
    """

    def __init__(self, name=None):
        self._name = name
        # Digest of what is computed and of the candidates -> number of a candidate.
        self._found, self._new = _read(name), {}

    @classmethod
    def of_this_machine(cls):
        """Those kept beside the compiled kernels, for the code that makes programs."""
        return cls(f"choices-{_environment()}")

    def find(self, workload, candidates):
        """The fastest candidate, or None if that is not known.

        Args:
            workload: What the candidates have in common, whose `repr` is the same in any process.
            candidates: List. As `workload`.
        """
        digest = _digest(workload, candidates)
        number = self._new.get(digest, self._found.get(digest, len(candidates)))
        return candidates[number] if number < len(candidates) else None

    def add(self, workload, candidates, candidate):
        """Notes which candidate is the fastest."""
        self._new[_digest(workload, candidates)] = candidates.index(candidate)

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


def _digest(workload, candidates):
    return hashlib.blake2b(repr((workload, candidates)).encode(), digest_size=12).hexdigest()


@functools.cache
def _environment():
    parts = caches.sources("ir", "lowering", "program")
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
