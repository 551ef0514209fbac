"""A result file that is saved after each result, so an interrupted benchmark can resume."""

import json
import os

from benchmarks._common import OUR_PACKAGES, RESULTS, package_versions, write_result


class Cells:
    """Results under keys, in the file `benchmarks/results/NAME.json`.

    Results of an earlier run with the same settings are kept; others are dropped.

    Args:
        name: String.
        settings: Dict of JSON types: what the results depend on.
        most: Integer. Exits after this many new results, so that a later run can resume.
    """

    def __init__(self, name, settings, most=None):
        self._name, self._settings, self._left = name, settings, most
        path = RESULTS / f"{name}.json"
        read = json.loads(path.read_text()) if path.exists() else {}
        self.results = read["results"] if read.get("settings") == settings else {}

    def measure(self, *key, by):
        """Returns the results under a key path in nested dicts. Calls `by()` if there are none."""
        *parents, last = map(str, key)
        own = self.results
        for name in parents:
            own = own.setdefault(name, {})
        if last not in own:
            if self._left == 0:
                raise SystemExit("reached the requested number of new results")
            own[last] = by()
            self._left = None if self._left is None else self._left - 1
            write_result(
                RESULTS, self._name, self._settings, package_versions(OUR_PACKAGES), self.results
            )
            print(" | ".join(map(str, key)), json.dumps(own[last]), os.getloadavg(), flush=True)
        return own[last]
