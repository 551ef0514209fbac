"""A result file that is written after each figure, so that a benchmark goes on where it was cut."""

import json
import os

from benchmarks._common import OUR_PACKAGES, RESULTS, package_versions, write_result


class Cells:
    """Figures under keys, in the file `benchmarks/results/NAME.json`.

    Figures of an earlier run with the same settings are kept; those of other settings are dropped.

    Args:
        name: String.
        settings: Dict of JSON types: what the figures depend on.
        most: Integer. New figures after which the program ends, to go on another time.
    """

    def __init__(self, name, settings, most=None):
        self._name, self._settings, self._left = name, settings, most
        path = RESULTS / f"{name}.json"
        read = json.loads(path.read_text()) if path.exists() else {}
        self.results = read["results"] if read.get("settings") == settings else {}

    def measure(self, *key, by):
        """The figures under a key, a path through nested dicts: known, or what `by()` returns."""
        *parents, last = map(str, key)
        own = self.results
        for name in parents:
            own = own.setdefault(name, {})
        if last not in own:
            if self._left == 0:
                raise SystemExit("measured as many figures as asked for")
            own[last] = by()
            self._left = None if self._left is None else self._left - 1
            write_result(
                RESULTS, self._name, self._settings, package_versions(OUR_PACKAGES), self.results
            )
            print(" | ".join(map(str, key)), json.dumps(own[last]), os.getloadavg(), flush=True)
        return own[last]
