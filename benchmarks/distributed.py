"""The cost of pruning on several devices, and for a large model on one.

    python -m benchmarks.distributed [--quick]

The parts, each of which writes one file of results (`--only` selects some):

    distributed_steps    time of a pruned training step over that of a dense one: weights split over
                         8 devices on JAX, 2 replicas on TensorFlow
    large_model          compiling, first step and memory of a model with 100 weights of different
                         shapes and 120 million parameters, on JAX
"""

import argparse
import pathlib
import statistics

from benchmarks._common import (
    OUR_PACKAGES,
    QUICK_RESULTS,
    RESULTS,
    Worker,
    median_ratio,
    write_result,
)

MODULE = "benchmarks._distributed_worker"
FULL = {
    "distributed_steps": {"width": 512, "frequency": 100, "block": 10, "windows": 2, "rounds": 3},
    "large_model": {"weights": 100, "rounds": 3},
}
QUICK = {
    "distributed_steps": {"width": 64, "frequency": 10, "block": 5, "windows": 1, "rounds": 1},
    "large_model": {"weights": 4, "rounds": 1},
}
LAYOUTS = {"jax": "split over 8 devices", "tensorflow": "2 replicas"}


def start(backend):
    return Worker(MODULE, backend, XLA_FLAGS="--xla_force_host_platform_device_count=8")


def distributed_steps(width, frequency, block, windows, rounds):
    """Runs dense and pruned steps in turns in one process. Each round is a new process."""
    results = {}
    for backend, layout in LAYOUTS.items():
        seconds = {"dense": [], "pruned": []}
        for i in range(rounds):
            print(f"{backend}: round {i + 1} of {rounds}", flush=True)
            with start(backend) as worker:
                times = worker.call(
                    "train", width=width, frequency=frequency, block=block, windows=windows
                )
            for kind in seconds:
                seconds[kind] += times[kind]
        results[f"{backend}, {layout}"] = {
            "pruned_over_dense": median_ratio(seconds["pruned"], seconds["dense"]),
            "seconds_per_block": seconds,
        }
    return results


def large_model(weights, rounds):
    """Runs each measurement in a new process, dense and pruned in turns."""
    measured = {"dense": [], "pruned": []}
    for i in range(rounds):
        for kind in ("dense", "pruned") if i % 2 == 0 else ("pruned", "dense"):
            print(f"large model: {kind}, round {i + 1} of {rounds}", flush=True)
            with Worker(MODULE, "jax") as worker:
                is_pruned = kind == "pruned"
                measured[kind].append(
                    worker.call("first_step", weights=weights, is_pruned=is_pruned)
                )
    names = measured["dense"][0]
    values = {
        kind: {name: [m[name] for m in measured[kind]] for name in names} for kind in measured
    }
    return {
        name: {
            "pruned_over_dense": median_ratio(values["pruned"][name], values["dense"][name]),
            "dense": statistics.median(values["dense"][name]),
            "pruned": statistics.median(values["pruned"][name]),
        }
        for name in names
    } | {"measured": measured}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(FULL), choices=list(FULL))
    parser.add_argument("--quick", action="store_true", help="tiny settings, for a quick try")
    parser.add_argument("--output", type=pathlib.Path, help="folder for the results")
    arguments = parser.parse_args()
    with Worker(MODULE, "jax") as worker:
        versions = {"keras-trim": worker.call("package_versions", names=OUR_PACKAGES)}
    folder = arguments.output or (QUICK_RESULTS if arguments.quick else RESULTS)
    for part in arguments.only:
        settings = (QUICK if arguments.quick else FULL)[part]
        write_result(folder, part, settings, versions, globals()[part](**settings))


if __name__ == "__main__":
    main()
