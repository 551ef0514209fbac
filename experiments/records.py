"""Results: each finished run appends one line of JSON."""

import datetime
import json
import os
import platform

from benchmarks._common import OUR_PACKAGES, cpu_name, package_versions


class Records:
    """A file of finished runs.

    Args:
        path: `pathlib.Path`. The file need not exist yet.
    """

    def __init__(self, path):
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.all = [json.loads(line) for line in lines]

    def find(self, **fields):
        """Returns a list of the records with these values."""
        return [r for r in self.all if all(r.get(k) == v for k, v in fields.items())]

    def append(self, record):
        """Adds the date, machine, load and package versions to a dict, and appends it.

        Returns:
            The dict as it was written.
        """
        record = record | {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()}",
            "load": round(os.getloadavg()[0], 1),
            "versions": record.get("versions") or package_versions(OUR_PACKAGES),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a") as file:
            file.write(json.dumps(record) + "\n")
        self.all.append(record)
        return record
