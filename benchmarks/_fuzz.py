"""Shared by both fuzzers: runs inputs under memory and time limits, and counts the outcomes.

Inputs come in blocks, each with its own random generator, and the counts are saved after each
block. So a stopped run can resume, and ends with the same inputs.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import random
import re
import resource
import signal
import time

from benchmarks._common import QUICK_RESULTS, RESULTS, package_versions, write_result
from benchmarks._memory import _status
from keras_trim.storage import FormatError

BLOCK = 10_000  # inputs


def parse(doc, **defaults):
    """Parses the arguments that both fuzzers share, and extra integers given as defaults."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {"count": 1_000_000, "seed": 0, **defaults}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--mode", choices=("bytes", "structure"), action="append")
    parser.add_argument("--resume", action="store_true", help="continue from the saved results")
    args = parser.parse_args()
    args.mode = args.mode or ["bytes", "structure"]
    return args


def limit_memory(bytes_more):
    """Limits the growth of the address space to this many bytes."""
    size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + bytes_more,) * 2)


def run(name, args, settings, packages, seconds, make, read):
    """Tries inputs of each mode and writes the results. Exits with 1 if any failed.

    Args:
        name: String. Name of the file of results.
        args: Result of `parse`.
        settings: Dict. More values to write.
        packages: Names of packages.
        seconds: Integer. Time limit of one input. Exceeding it ends the process.
        make: Function: mode, `random.Random` -> name of the mutation, and the input as bytes.
        read: Function: input, `random.Random` -> outcome, a string. It raises `FormatError` if it
            refuses the input; any other exception is a failure.
    """
    settings = {"seed": args.seed, "seconds_per_input": seconds, **settings}
    versions = {"keras-trim": package_versions(packages)}
    folder = RESULTS if args.count >= 100_000 else QUICK_RESULTS
    results, path = {}, folder / f"{name}.json"
    if args.resume and path.exists():
        results = json.loads(path.read_text())["results"]
    for mode in args.mode:
        mine = results.setdefault(mode, _nothing())
        while mine["inputs"] < args.count:
            _run_block(mine, mode, args.seed, min(BLOCK, args.count), seconds, make, read)
            write_result(folder, name, settings, versions, results)
    raise SystemExit(any(mine["failures"] for mine in results.values()))


def _nothing():
    numbers = {"inputs": 0, "seconds": 0.0, "slowest_seconds": 0.0, "peak_resident_bytes": 0}
    return {**numbers, "outcomes": {}, "failures": [], "messages": {}, "sha256_of_inputs": ""}


def _run_block(results, mode, seed, count, seconds, make, read):
    choice = random.Random(f"{mode} {seed} {results['inputs']}")
    outcomes = collections.defaultdict(collections.Counter)
    for mutation, counts in results["outcomes"].items():
        outcomes[mutation].update(counts)
    messages = collections.Counter(results["messages"])
    digest = hashlib.sha256(results["sha256_of_inputs"].encode())
    start = time.perf_counter()
    for index in range(results["inputs"], results["inputs"] + count):
        mutation, data = make(mode, choice)
        digest.update(data)
        signal.alarm(seconds)  # by default, the signal kills the process
        begin = time.perf_counter()
        try:
            outcome = read(data, choice)
        except FormatError as error:
            outcome = "refused"
            messages[_kind(error)] += 1
        except Exception as error:
            outcome = "failed"
            results["failures"].append({"index": index, "error": repr(error)[:300]})
        signal.alarm(0)
        outcomes[mutation][outcome] += 1
        took = round(time.perf_counter() - begin, 4)
        results["slowest_seconds"] = max(results["slowest_seconds"], took)
    results["inputs"] += count
    results["seconds"] = round(results["seconds"] + time.perf_counter() - start, 1)
    results["peak_resident_bytes"] = max(results["peak_resident_bytes"], _status("VmHWM"))
    results["outcomes"] = {key: dict(counts) for key, counts in sorted(outcomes.items())}
    results["messages"] = dict(messages.most_common())
    results["sha256_of_inputs"] = digest.hexdigest()
    total = sum(outcomes.values(), collections.Counter())
    print(mode, results["inputs"], dict(total), f"{results['seconds']:.0f} s", flush=True)


def _kind(error):
    """Returns the beginning of an error message, without names and numbers."""
    text = re.sub(r"'.*?'|\(.*|\d[\d,]*", "_", str(error))
    return " ".join(text.split())[:70]
