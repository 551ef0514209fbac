"""Reads a million files that lie, in one process. None may crash, hang or take claimed memory.

    python -m benchmarks.fuzz_storage [--count 1000000] [--seed 0]

Every file is a real one with random changes (see `_mutations.py`). It must either be read or raise
`FormatError`. The process may not take more than `HEADROOM` bytes above what a file is allowed to
hold, and no file may take longer than `SECONDS`.
"""

import argparse
import collections
import hashlib
import pathlib
import re
import resource
import signal
import time

from benchmarks import _mutations
from benchmarks._common import QUICK_RESULTS, RESULTS, package_versions, write_result
from benchmarks._memory import _status
from keras_trim.storage import FormatError

MAX_BYTES = 1 << 24  # the most bytes a file may decode to
HEADROOM = 1 << 26
SECONDS = 10


def _kind(error):
    """Returns the beginning of a message, without names and numbers."""
    text = re.sub(r"'.*?'|\(.*|\d[\d,]*", "_", str(error))
    return " ".join(text.split())[:70]


def run(count, seed):
    choices = _mutations.random_choices(seed)
    files = _mutations.seed_files()
    for data in files:
        _mutations.read_all(data, MAX_BYTES)
    size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MAX_BYTES + HEADROOM,) * 2)
    outcomes, messages, failures = collections.Counter(), collections.Counter(), []
    digest = hashlib.sha256()
    start = slowest = time.perf_counter()
    slowest = 0.0
    for index in range(count):
        data = _mutations.mutate(choices.choice(files), choices)
        digest.update(data)
        signal.alarm(SECONDS)  # its default action kills; the missing summary then tells
        begin = time.perf_counter()
        try:
            _mutations.read_all(data, MAX_BYTES)
            outcomes["read"] += 1
        except FormatError as error:
            outcomes["refused"] += 1
            messages[_kind(error)] += 1
        except Exception as error:
            outcomes["failed"] += 1
            if len(failures) < 20:
                failures.append({"index": index, "error": repr(error)[:300]})
        slowest = max(slowest, time.perf_counter() - begin)
        signal.alarm(0)
        if (index + 1) % 50_000 == 0:
            print(index + 1, dict(outcomes), f"{time.perf_counter() - start:.0f} s", flush=True)
    return {
        "inputs": count,
        "outcomes": dict(outcomes),
        "failures": failures,
        "slowest_seconds": round(slowest, 4),
        "seconds": round(time.perf_counter() - start),
        "peak_resident_bytes": _status("VmHWM"),
        "sha256_of_inputs": digest.hexdigest(),
        "messages": dict(messages.most_common()),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = run(args.count, args.seed)
    settings = {
        "seed": args.seed,
        "max_bytes": MAX_BYTES,
        "memory_over_max_bytes": HEADROOM,
        "seconds_per_input": SECONDS,
        "mutations": [mutation.__name__.strip("_") for mutation in _mutations.MUTATIONS],
    }
    versions = {"keras-trim": package_versions(("keras-trim", "numpy", "zstandard"))}
    folder = RESULTS if args.count >= 1_000_000 else QUICK_RESULTS
    write_result(folder, "fuzz_storage", settings, versions, results)
    raise SystemExit(1 if results["failures"] else 0)


if __name__ == "__main__":
    main()
