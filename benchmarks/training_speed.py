"""The cost of pruning during training, compared with TFMOT.

    python -m benchmarks.training_speed --peer-python path/to/tfmot/bin/python [--quick]

The parts, each of which writes one file of results (`--only` selects some):

    mask_update   computing the mask of one weight with 25 million elements
    mlp           time of a training step of a small MLP, pruned over dense
    mobilenet     time of a training step of MobileNetV1, pruned over dense
    first_step    extra time of the first step, including tracing and compiling
    memory        permanent bytes per weight, and temporary bytes of an update
"""

import argparse
import contextlib
import pathlib
import statistics
import tempfile

import numpy as np

from benchmarks import _memory
from benchmarks._common import (
    BACKENDS,
    OUR_PACKAGES,
    PEER_PACKAGES,
    QUICK_RESULTS,
    RESULTS,
    Worker,
    median_ratio,
    write_result,
)

PEER = "TFMOT"
SPARSITY = 0.8

# `block` steps of the dense model and of the pruned one alternate. A window is `frequency` steps
# with one update of the masks. Every round is a new process.
FULL = {
    "mask_update": {"side": 5000, "rounds": 7},
    "mlp": {"frequency": 100, "block": 10, "windows": 3, "rounds": 8, "batches": 64},
    "mobilenet": {"frequency": 100, "block": 5, "windows": 1, "rounds": 4, "batches": 8},
    "first_step": {"model": "mobilenet", "rounds": 3},
    "memory": {"model": "mobilenet", "side": 5000},
}
QUICK = {
    "mask_update": {"side": 500, "rounds": 3},
    "mlp": {"frequency": 20, "block": 5, "windows": 2, "rounds": 2, "batches": 4},
    "mobilenet": {"frequency": 4, "block": 2, "windows": 1, "rounds": 2, "batches": 2},
    "first_step": {"model": "mlp", "rounds": 1},
    "memory": {"model": "mlp", "side": 3000},
}


class Bench:
    """Starts workers and knows which exist.

    Args:
        backends: List of strings.
        peer_python: Path of the interpreter that has TFMOT, or `None`.
    """

    def __init__(self, backends, peer_python):
        self.backends = list(backends)
        self.names = self.backends + ([PEER] if peer_python else [])
        self._peer_python = peer_python

    def start(self, name, **variables):
        if name == PEER:
            return Worker("benchmarks._tfmot_worker", "tensorflow", self._peer_python, **variables)
        return Worker("benchmarks._keras_trim_worker", name, **variables)

    @contextlib.contextmanager
    def start_all(self):
        with contextlib.ExitStack() as stack:
            yield {name: stack.enter_context(self.start(name)) for name in self.names}

    def versions(self):
        versions = {}
        for name, packages in ((self.backends[0], OUR_PACKAGES), (PEER, PEER_PACKAGES)):
            if name in self.names:
                with self.start(name) as worker:
                    versions[packages[0]] = worker.call("package_versions", names=packages)
        return versions


def mask_update(bench, side, rounds):
    """Measures each worker once per round, and NumPy in the process of the first worker."""
    with bench.start_all() as workers:
        numpy_worker = workers[bench.backends[0]]
        differing = _compare_masks(workers, numpy_worker, side)
        seconds = {name: [] for name in ("numpy.partition", *workers)}
        for i in range(rounds):
            print(f"mask_update: round {i + 1} of {rounds}", flush=True)
            seconds["numpy.partition"].append(numpy_worker.call("time_partition"))
            for name, worker in workers.items():
                seconds[name].append(worker.call("time_mask"))
    results = {
        name: {
            "seconds": times,
            "median_seconds": statistics.median(times),
            "over_partition": median_ratio(times, seconds["numpy.partition"]),
        }
        for name, times in seconds.items()
    }
    for name, count in differing.items():
        results[name]["differing_from_numpy"] = count
        if PEER in seconds:
            results[name]["peer_over_this"] = median_ratio(seconds[PEER], seconds[name])
    return results


def _compare_masks(workers, numpy_worker, side):
    """Returns a dict: worker -> number of positions where its mask differs from NumPy's."""
    size = side * side
    num_pruned = round(size * SPARSITY)
    differing = {}
    with tempfile.TemporaryDirectory() as folder:

        def mask(worker, command, **arguments):
            path = str(pathlib.Path(folder) / "mask.npy")
            worker.call(command, side=side, path=path, **arguments)
            return np.load(path)

        expected = mask(numpy_worker, "setup_partition", num_pruned=num_pruned)
        for name, worker in workers.items():
            asked = {"sparsity": SPARSITY} if name == PEER else {"num_pruned": num_pruned}
            found = mask(worker, "setup_mask", **asked)
            differing[name] = int(np.bitwise_count(expected ^ found).sum())
            # TFMOT computes the number to keep in float32, and keeps all ties at the threshold.
            if differing[name] > (1e-6 * size + 1 if name == PEER else 0):
                raise ValueError(f"{name} and NumPy differ in {differing[name]} of {size} places")
    return differing


def train_step(bench, model_name, frequency, block, windows, rounds, batches):
    """Trains a dense and a pruned model of each backend per round, block by block.

    Each round runs in new processes: the placement of arrays in memory favors one model or the
    other by a few percent for the life of a process. Which of the two goes first alternates as
    well.
    """
    steps = block + windows * frequency  # the first block warms up and compiles
    blocks = {name: {"dense": [], "pruned": []} for name in bench.names}
    expected = None
    for i in range(rounds):
        for name in bench.names:
            print(f"{model_name}: round {i + 1} of {rounds}, {name}", flush=True)
            with bench.start(name) as worker:
                output = worker.call(
                    "setup_train",
                    model_name=model_name,
                    sparsity=SPARSITY,
                    frequency=frequency,
                    batches=batches,
                    first=("dense", "pruned")[i % 2],
                )
                expected = output if expected is None else expected
                _check_outputs(name, output, expected)
                seconds, sparsity = worker.call("train", block=block, steps=steps)
            if abs(sparsity - SPARSITY) > 1e-3:
                raise ValueError(f"{name} pruned to {sparsity:.2%} instead of {SPARSITY:.0%}")
            for kind, times in seconds.items():
                blocks[name][kind].append(times[1:])
    return {name: _summary(**kinds, places=frequency // block) for name, kinds in blocks.items()}


def _check_outputs(name, output, expected):
    output, expected = np.array(output), np.array(expected)
    if not np.allclose(output, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()):
        raise ValueError(f"The dense model of {name} computes other outputs than the first one")


def _summary(dense, pruned, places):
    """Summarizes the times of blocks, a list of seconds for each round.

    A median over all pairs would not see the mask updates, because few blocks have one. So the
    median is taken over all windows for each position in the window, and the ratio is the mean over
    positions.
    """
    dense, pruned = np.array(dense), np.array(pruned)
    pairs = pruned / dense

    def by_place(pairs):
        return np.median(pairs.reshape(-1, places), axis=0)

    return {
        "ratio": float(by_place(pairs).mean()),
        "pairs": pairs.size,
        "quartiles": np.quantile(pairs, (0.25, 0.75)).tolist(),
        "ratio_of_each_round": [float(by_place(of_round).mean()) for of_round in pairs],
        "ratio_at_each_place": by_place(pairs).tolist(),
        "median_block_seconds": {"dense": np.median(dense), "pruned": np.median(pruned)},
        "block_seconds": {"dense": dense.round(6).tolist(), "pruned": pruned.round(6).tolist()},
    }


def first_step(bench, model, rounds):
    """Runs every measurement in a new process, dense and pruned in turns."""
    seconds = {name: {"dense": [], "pruned": []} for name in bench.names}
    for i in range(rounds):
        for name in bench.names:
            print(f"first_step: round {i + 1} of {rounds}, {name}", flush=True)
            for kind, times in seconds[name].items():
                with bench.start(name) as worker:
                    is_pruned = kind == "pruned"
                    times.append(
                        worker.call("time_first_step", model_name=model, is_pruned=is_pruned)
                    )
    results = {}
    for name, times in seconds.items():
        extra = [p - d for p, d in zip(times["pruned"], times["dense"], strict=True)]
        results[name] = {
            "extra_seconds": statistics.median(extra),
            "dense_seconds": statistics.median(times["dense"]),
            "pruned_seconds": statistics.median(times["pruned"]),
            "seconds": times,
        }
    return results


def memory(bench, model, side):
    """Runs each measurement in a new process. See `benchmarks._memory` for the method."""
    results = {}
    for name in bench.names:
        print(f"memory: {name}", flush=True)
        with bench.start(name) as worker:
            per_weight, fixed = worker.call("mask_bytes", model_name=model)
        results[name] = {"bytes_per_pruned_weight": per_weight, "further_bytes": fixed}
        cases = {"one weight": None} if name == PEER else {"one weight": None, model: model}
        for case, model_name in cases.items():
            with bench.start(name, **_memory.OPEN_ALLOCATORS) as worker:
                peak = worker.call("peak_memory", model_name=model_name, side=side)
            if not 0.95 < peak["control"] < 1.05 and case == "one weight":
                raise ValueError(f"{name}: the kernel misreports the memory of the control: {peak}")
            results[name][f"peak, {case}"] = peak
    return results


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="interpreter with TFMOT, to measure it, too")
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--only", nargs="+", default=list(FULL), choices=list(FULL))
    parser.add_argument("--quick", action="store_true", help="tiny settings, for a quick try")
    parser.add_argument("--output", type=pathlib.Path, help="folder for the results")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    bench = Bench(arguments.backends, arguments.peer_python)
    versions = bench.versions()
    folder = arguments.output or (QUICK_RESULTS if arguments.quick else RESULTS)
    for part in arguments.only:
        settings = (QUICK if arguments.quick else FULL)[part]
        if part in ("mlp", "mobilenet"):
            results = train_step(bench, part, **settings)
        else:
            results = globals()[part](bench, **settings)
        write_result(folder, part, settings | {"sparsity": SPARSITY}, versions, results)


if __name__ == "__main__":
    main()
