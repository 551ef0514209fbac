"""Speed, memory and startup time of pruned networks, compared with other CPU runtimes.

    python -m benchmarks.inference --peer-python path/to/deepsparse/bin/python [--quick]

Networks and other parts, each of which writes one file of results (`--only` selects some):

    mobilenet_v1, mobilenet_v2, inception_v3, resnet50, ds_cnn, lstm, mlp
                  milliseconds per example, dense and pruned, one thread and two, every runtime
    machine       peak FLOP/s and memory bandwidth
    memory        resident memory of a process that runs a pruned network
    compile       seconds from a Keras model to its first answer, with and without cached kernels
    crossover     the sparsity from which a sparse product is faster, per shape; and a plot

    python -m benchmarks.inference --without FEATURE [FEATURE ...] [--only NETWORK ...]

measures instead how much slower the pruned networks are without an optional algorithm for some
layers (`all`: each of them in turn), and adds the networks to `without.json`.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import statistics
import tempfile
import time

import numpy as np

from benchmarks import _inference_files, _inference_plot, _inference_without
from benchmarks._common import (
    QUICK_RESULTS,
    RESULTS,
    ROOT,
    Worker,
    count_cores,
    median_ratio,
    write_result,
)
from benchmarks._inference_models import NETWORKS
from benchmarks._inference_table import NEW

OURS, PEER = "keras-trim", "DeepSparse"
DENSE = ("LiteRT", "ONNX Runtime")
SPARSE_FILE = "LiteRT, sparse file"
PACKAGES = {
    OURS: ("keras-trim", "keras", "jax", "numba", "numpy"),
    "LiteRT": ("ai-edge-litert",),
    "ONNX Runtime": ("onnxruntime",),
    PEER: ("deepsparse", "numpy"),
}
TOLERANCE = 1e-3  # relative to the largest output; 100 float32 layers differ by up to 2e-4
PAUSE = 0.05  # seconds, until the previous runtime's threads stop spinning

FULL = {"rounds": 3, "seconds": 0.15, "least": 3, "attempts": 12, "cases": 3}
QUICK = {"rounds": 2, "seconds": 0.02, "least": 2, "attempts": 1, "cases": 1}

MEMORY_CASES = (("mobilenet_v1", 0.9), ("resnet50", 0.9), ("mlp", 0.95))
COMPILE_CASES = (("mobilenet_v1", 0.9), ("resnet50", 0.9))
# Title, and the arguments of `_inference_kernels.time_product`.
PRODUCTS = {
    "1x1, 56x56, 128 to 128": (56, 1, 128, 128),
    "1x1, 14x14, 512 to 512": (14, 1, 512, 512),
    "1x1, 7x7, 1024 to 1024": (7, 1, 1024, 1024),
    "3x3, 14x14, 256 to 256": (14, 3, 256, 256),
    "3x3, 56x56, 64 to 64": (56, 3, 64, 64),
    "one row, 4096 to 4096": (0, 1, 4096, 4096),
    "one row, 1024 to 1000": (0, 1, 1024, 1000),
}
SPARSITIES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.875, 0.9, 0.95, 0.98)


class Bench:
    """Starts workers, requests files for them, and measures.

    Args:
        files: `_inference_files.Files`.
        threads: List of integers.
        peer_python: Path of the interpreter that has DeepSparse, or `None`.
        settings: Dict, `FULL` or `QUICK`.
    """

    def __init__(self, files, threads, peer_python, settings):
        self.files, self.threads, self.settings = files, threads, settings
        self._peer_python = peer_python
        self.runtimes = (OURS, *DENSE) + ((PEER,) if peer_python else ())

    def start(self, runtime, num_threads=1, core=None, **variables):
        python = self._peer_python if runtime == PEER else None
        variables = {"OMP_NUM_THREADS": str(num_threads), **variables}
        return Worker("benchmarks._inference_worker", "jax", python, core, **variables)

    def load(self, worker, runtime, name, sparsity, num_threads, path=None):
        path = path or self.files.get(runtime, name, sparsity)
        return worker.call("load", runtime=runtime, name=name, path=path, num_threads=num_threads)

    def versions(self, packages=None):
        """Returns a dict: runtime -> versions of its packages.

        Args:
            packages: Dict: runtime -> names of packages. Default: those of `self.runtimes`.
        """
        versions = {}
        for runtime, names in (packages or {r: PACKAGES[r] for r in self.runtimes}).items():
            with self.start(runtime) as worker:
                versions[runtime] = worker.call("package_versions", names=names)
        return versions

    def network(self, name):
        """Measures one network at each of its sparsities, with each number of threads."""
        results = {}
        for sparsity in NETWORKS[name].goals:
            results[sparsity] = {"threads": {}}
            for num_threads in self.threads:
                print(f"{name}, {sparsity:.1%} zeros, threads: {num_threads}", flush=True)
                found = self._pair(name, sparsity, num_threads)
                if "layers" in found:
                    results[sparsity]["layers"] = found.pop("layers")
                results[sparsity]["threads"][num_threads] = found
        return results

    def _pair(self, name, sparsity, num_threads):
        runtimes = list(self.runtimes)
        # Other programs slow one core down more than another, so all workers use the same one.
        core = max(os.sched_getaffinity(0)) if num_threads == 1 else None
        if sparsity and num_threads == self.threads[0]:
            runtimes.append(SPARSE_FILE)
        found = {"runtimes": {}, "failed": {}}
        with contextlib.ExitStack() as stack:
            workers = {}
            for runtime in runtimes:
                try:
                    worker = stack.enter_context(self.start(runtime, num_threads, core))
                    loaded = self.load(worker, runtime, name, sparsity, num_threads)
                except RuntimeError as error:
                    found["failed"][runtime] = str(error).strip().splitlines()[-1]
                    print(f"  {runtime} failed: {found['failed'][runtime]}", flush=True)
                    continue
                workers[runtime] = worker
                found["runtimes"][runtime] = {"load_seconds": loaded}
            for runtime, error in _compare(workers).items():
                found["runtimes"][runtime]["error"] = error
            print(f"  differences: {_compared(found)}", flush=True)
            milliseconds = self.calmest_turns(workers)
            if num_threads == 1 and OURS in workers:
                found["layers"] = workers[OURS].call("time_layers")
        for runtime, times in milliseconds.items():
            found["runtimes"][runtime] |= {"ms": statistics.median(times), "round_ms": times}
        found |= _ratios(milliseconds)
        line = ", ".join(f"{r} {statistics.median(t):.2f}" for r, t in milliseconds.items())
        print(f"  ms: {line}", flush=True)
        return found

    def calmest_turns(self, workers):
        """Returns the result of `_take_turns` from the calmest of a few attempts.

        Other programs slow down some phases, and not all runtimes equally. They never speed
        anything up, so this keeps the attempt in which all runtimes together were fastest.
        """
        attempts = [self._take_turns(workers) for _ in range(self.settings["attempts"])]
        return min(
            attempts,
            key=lambda attempt: math.prod(statistics.median(times) for times in attempt.values()),
        )

    def _take_turns(self, workers):
        """Returns a dict: runtime -> the median of each round, in milliseconds."""
        milliseconds = {runtime: [] for runtime in workers}
        for i in range(self.settings["rounds"]):
            # Reverse every other round, so that no runtime always follows the same one.
            for runtime in list(workers)[:: 1 if i % 2 == 0 else -1]:
                time.sleep(PAUSE)
                times = workers[runtime].call(
                    "measure", seconds=self.settings["seconds"], least=self.settings["least"]
                )
                milliseconds[runtime].append(1e3 * statistics.median(times))
        return milliseconds

    def machine(self):
        results = {}
        for num_threads in self.threads:
            with Worker("benchmarks._inference_kernels", "jax") as worker:
                results[num_threads] = worker.call("measure_machine", num_threads=num_threads)
            print(f"machine, threads: {num_threads}: {results[num_threads]}", flush=True)
        return results

    def memory(self):
        """Measures each case in a new process, with one thread, after one answer."""
        results = {}
        for name, sparsity in MEMORY_CASES[: self.settings["cases"]]:
            sizes = {}
            with self._engine_file(name, sparsity) as file:
                cases = [(runtime, runtime, None) for runtime in (*self.runtimes, SPARSE_FILE)]
                cases.append((f"{OURS}, from a file", OURS, file))
                for case, runtime, path in cases:
                    with self.start(runtime) as worker:
                        before = worker.call("resident_bytes")
                        self.load(worker, runtime, name, sparsity, 1, path)
                        after = worker.call("resident_bytes")
                    sizes[case] = {"before": before, "after": after}
                    print(f"memory, {name}, {case}: {after / 1e6:.0f} MB", flush=True)
            results[name] = {"sparsity": sparsity, "resident_bytes": sizes}
        return results

    @contextlib.contextmanager
    def _engine_file(self, name, sparsity):
        """Returns the path of a saved engine, which loads without Keras."""
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/network.engine"
            with self.start(OURS) as worker:
                self.load(worker, OURS, name, sparsity, 1)
                worker.call("save_engine", path=path)
            yield path

    def compile(self):
        results = {}
        for name, sparsity in COMPILE_CASES[: self.settings["cases"]]:
            results[name] = {"sparsity": sparsity}
            with tempfile.TemporaryDirectory() as cache, self._engine_file(name, sparsity) as file:
                cases = ("cold", None), (NEW, None), ("warm", None), ("warm, from a file", file)
                for case, path in cases:
                    if case == NEW:
                        for choices in pathlib.Path(cache).rglob("choices-*.json"):
                            choices.unlink()
                    with self.start(OURS, KERAS_TRIM_CACHE_DIR=cache) as worker:
                        results[name][case] = self.load(worker, OURS, name, sparsity, 1, path)
                    print(f"compile, {name}, {case}: {results[name][case]}", flush=True)
        return results

    def crossover(self):
        results = {}
        with Worker("benchmarks._inference_kernels", "jax") as worker:
            for title, shape in PRODUCTS.items():
                print(f"crossover: {title}", flush=True)
                results[title] = worker.call(
                    "time_product", shape=shape, sparsities=SPARSITIES,
                    seconds=self.settings["seconds"] / 10, rounds=self.settings["rounds"],
                )  # fmt: skip
        return results


def _compare(workers):
    """Returns each runtime's difference from the first peer, relative to the largest output."""
    reference = next((runtime for runtime in workers if runtime != OURS), OURS)
    expected, other = (np.array(workers[reference].call("answer", seed=i)) for i in (0, 1))
    largest = np.abs(expected).max()
    if not np.abs(expected - other).max() > 0.1 * largest:
        raise ValueError("The outputs do not depend on the input, so comparing them proves nothing")
    errors = {}
    for runtime, worker in workers.items():
        found = np.array(worker.call("answer", seed=0))
        errors[runtime] = float(np.abs(found - expected).max() / largest)
        if not errors[runtime] < TOLERANCE:
            raise ValueError(f"{runtime} differs from {reference} by {errors[runtime]:.1e}")
    return errors


def _compared(found):
    return ", ".join(f"{r} {result['error']:.0e}" for r, result in found["runtimes"].items())


def _ratios(milliseconds):
    """Returns our speedup over each peer, the median over rounds."""
    if OURS not in milliseconds:
        return {}
    speedups = {
        runtime: median_ratio(times, milliseconds[OURS])
        for runtime, times in milliseconds.items()
        if runtime != OURS
    }
    dense = [runtime for runtime in DENSE if runtime in speedups]
    fastest = min(dense, key=lambda runtime: statistics.median(milliseconds[runtime]))
    return {"fastest_dense": fastest, "speedup_over": speedups}


PARTS = ("machine", "memory", "compile", "crossover")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="interpreter with DeepSparse, to measure it, too")
    choices = (*NETWORKS, *PARTS)
    parser.add_argument("--only", nargs="+", default=choices, choices=choices, metavar="PART")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="few rounds, for a quick try")
    parser.add_argument(
        "--without", nargs="+", metavar="FEATURE", choices=(*_inference_without.FEATURES, "all")
    )
    parser.add_argument("--output", type=pathlib.Path, help="folder for the results")
    parser.add_argument(
        "--work-dir", type=pathlib.Path, help="folder that keeps the peers' files for another run"
    )
    arguments = parser.parse_args()
    if max(arguments.threads) > count_cores():
        parser.error(f"There are {count_cores()} cores. Received: --threads={arguments.threads}")
    return arguments


def measure_without(files, arguments, folder, settings):
    """Measures the pruned networks, and one with zeros in blocks, without optional features."""
    features = arguments.without
    if "all" in features:
        features = list(_inference_without.FEATURES)
    earlier = folder / "without.json"
    results = json.loads(earlier.read_text())["results"] if earlier.exists() else {}
    networks = [name for name in arguments.only if name in NETWORKS]
    cases = [(name, False) for name in networks]
    cases += [(name, True) for name in networks if name == "mobilenet_v1"]
    for name, is_blocked in cases:
        path = files.get(OURS, name, max(NETWORKS[name].goals))
        title = f"{name}, zeros in blocks" if is_blocked else name
        for threads in arguments.threads:
            with Worker("benchmarks._inference_worker", "jax") as worker:
                found = worker.call(
                    "measure_without", name=name, path=path, features=features,
                    num_threads=threads, rounds=8 * settings["rounds"], is_blocked=is_blocked,
                )  # fmt: skip
            results.setdefault(title, {})[str(threads)] = found
            for feature, one in found.items():
                gain = f"{one['gain']:.3f}" if one else "not chosen"
                print(f"{title}, threads: {threads}, without {feature}: {gain}", flush=True)
            write_result(folder, "without", settings, {}, results)


def main():
    arguments = parse_arguments()
    folder = (arguments.output or (QUICK_RESULTS if arguments.quick else RESULTS)) / "inference"
    settings = QUICK if arguments.quick else FULL
    with contextlib.ExitStack() as stack:
        work_dir = arguments.work_dir or stack.enter_context(tempfile.TemporaryDirectory())
        files = stack.enter_context(_inference_files.Files(pathlib.Path(work_dir)))
        if arguments.without:
            measure_without(files, arguments, folder, settings)
            return
        bench = Bench(files, arguments.threads, arguments.peer_python, settings)
        versions = bench.versions()
        for part in arguments.only:
            is_network = part in NETWORKS
            results = bench.network(part) if is_network else getattr(bench, part)()
            write_result(folder, part, settings, versions, results)
    if "crossover" in arguments.only:
        image = (folder if arguments.quick else ROOT / "docs" / "images") / "crossover.png"
        _inference_plot.draw(folder / "crossover.json", image)


if __name__ == "__main__":
    main()
