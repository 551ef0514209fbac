"""Loads and runs engine files that lie, in one process: none may crash, hang, or take memory.

    python -m benchmarks.fuzz_engine [--count 1000000] [--seed 0] [--run 20]

Every file is that of `tests/data/version_0_1_0.engine`, changed at random (see
`_engine_mutations.py`). It must either be refused by `FormatError` or load; one in `--run` of those
that load is called, too, which plans it first. The process may not take more than `HEADROOM` bytes
over what a file is allowed to hold, and no file may take longer than `SECONDS`.
"""

import argparse
import collections
import hashlib
import pathlib
import resource
import signal
import tempfile
import time

import numpy as np

from benchmarks import _engine_mutations, _mutations
from benchmarks._common import QUICK_RESULTS, RESULTS, ROOT, package_versions, write_result
from benchmarks._memory import _status
from benchmarks.fuzz_storage import _kind
from keras_trim.inference import Engine
from keras_trim.storage import FormatError

MAX_BYTES = 1 << 24
HEADROOM = 1 << 28  # kernels are compiled code, and threads have stacks
SECONDS = 30


def _try(path, inputs, is_run):
    engine = Engine.load(path, num_threads=1, max_bytes=MAX_BYTES)
    engine._tuner.cache._name = None
    engine._tuner.seconds = 1e-5
    if is_run:
        engine(inputs)
        return "ran"
    return "loaded"


def run(count, seed, every):
    """Yields the results so far, now and then."""
    choice = _mutations.random_choices(seed)
    data = (ROOT / "tests" / "data" / "version_0_1_0.engine").read_bytes()
    with np.load(ROOT / "tests" / "data" / "version_0_1_0.npz") as arrays:
        inputs = {name: arrays[name] for name in ("image", "tokens")}
    outcomes, messages, failures = collections.Counter(), collections.Counter(), []
    digest, slowest = hashlib.sha256(), 0.0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = pathlib.Path(folder, "fuzzed.engine")
        path.write_bytes(data)
        _try(path, inputs, True)
        size = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
        limit = size * resource.getpagesize() + MAX_BYTES + HEADROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        parts, start, loaded = _engine_mutations.parts_of(data), time.perf_counter(), 0
        for index in range(count):
            changed = _engine_mutations.mutate(data, parts, choice)
            digest.update(changed)
            path.write_bytes(changed)
            signal.alarm(SECONDS)  # its default action kills
            begin = time.perf_counter()
            try:
                outcome = _try(path, inputs, loaded % every == 0)
                loaded += 1
            except FormatError as error:
                outcome = "refused"
                messages[_kind(error)] += 1
            except ValueError as error:  # inputs that are not those of the changed file
                outcome = "inputs refused" if "nput" in str(error) else "failed"
                messages[_kind(error)] += 1
            except Exception as error:
                outcome = "failed"
                failures.append({"index": index, "error": repr(error)[:300]})
            signal.alarm(0)
            outcomes[outcome] += 1
            slowest = max(slowest, time.perf_counter() - begin)
            if (index + 1) % 5000 == 0 or index + 1 == count:
                yield {
                    "inputs": index + 1,
                    "outcomes": dict(outcomes),
                    "failures": failures[:20],
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
    parser.add_argument("--run", type=int, default=20)
    args = parser.parse_args()
    settings = {
        "seed": args.seed,
        "one_run_in": args.run,
        "max_bytes": MAX_BYTES,
        "memory_over_max_bytes": HEADROOM,
        "seconds_per_input": SECONDS,
    }
    versions = {"keras-trim": package_versions(("keras-trim", "numpy", "numba", "zstandard"))}
    folder = RESULTS if args.count >= 1_000_000 else QUICK_RESULTS
    for results in run(args.count, args.seed, args.run):
        write_result(folder, "fuzz_engine", settings, versions, results)
    raise SystemExit(1 if results["outcomes"].get("failed") else 0)


if __name__ == "__main__":
    main()
