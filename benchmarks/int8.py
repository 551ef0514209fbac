"""Dense int8 networks in other CPU runtimes, next to pruned float32 networks in the engine.

    pip install nncf        # quantizes for OpenVINO
    python -m benchmarks.int8 [--only NETWORK ...] [--quick]

Each runtime gets its network the way its own documentation describes: LiteRT by full-integer
quantization in TensorFlow's converter, ONNX Runtime by `quantize_static` (QDQ, per channel),
OpenVINO by `nncf.quantize`. All of them calibrate on the same 16 random examples. The float32
networks of the same runtimes run in the same turns.

Both kinds of networks give up something: pruned ones need training to get their accuracy back, and
int8 ones round. With random weights there is no accuracy to measure, so the results only have each
int8 network's difference from the float32 one, relative to the largest output. It shows whether the
quantized network still computes the same function.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import tempfile

import numpy as np

from benchmarks import _inference_files
from benchmarks._common import QUICK_RESULTS, RESULTS, count_cores, median_ratio, write_result
from benchmarks._inference_models import NETWORKS
from benchmarks.inference import FULL, OURS, PACKAGES, QUICK, Bench

FLOAT = ("LiteRT", "ONNX Runtime", "OpenVINO")
INT8 = tuple(f"{runtime}, int8" for runtime in FLOAT)
IMAGES = ("mobilenet_v1", "mobilenet_v2", "inception_v3", "resnet50", "ds_cnn")
_OPENVINO = {"OpenVINO": ("openvino", "nncf")}


def measure(bench, name, num_threads):
    """Returns the milliseconds of each case, differences, and our speedup over the best int8."""
    core = max(os.sched_getaffinity(0)) if num_threads == 1 else None
    cases = [(f"{OURS}, {sparsity:.1%}", OURS, sparsity) for sparsity in NETWORKS[name].goals]
    cases += [(runtime, runtime, 0.0) for runtime in (*FLOAT, *INT8)]
    with contextlib.ExitStack() as stack:
        workers = {}
        for case, runtime, sparsity in cases:
            worker = stack.enter_context(bench.start(runtime, num_threads, core))
            bench.load(worker, runtime, name, sparsity, num_threads)
            workers[case] = worker
        differences = {
            runtime: _difference(workers[runtime], workers["LiteRT"]) for runtime in INT8
        }
        times = bench.calmest_turns(workers)
    best = min(INT8, key=lambda runtime: statistics.median(times[runtime]))
    ours = [case for case, runtime, _ in cases if runtime == OURS]
    found = {
        "ms": {case: statistics.median(each) for case, each in times.items()},
        "round_ms": times,
        "differences": differences,
        "fastest_int8": best,
        "speedup_over_int8": {case: median_ratio(times[best], times[case]) for case in ours},
    }
    line = ", ".join(f"{case} {ms:.2f}" for case, ms in found["ms"].items())
    print(f"{name}, threads: {num_threads}, ms: {line}", flush=True)
    return found


def _difference(worker, reference):
    """Returns a worker's largest difference, relative to the largest output, a float."""
    found, expected = (np.array(each.call("answer", seed=0)) for each in (worker, reference))
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=IMAGES, choices=IMAGES, metavar="NETWORK")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="few rounds, for a quick try")
    parser.add_argument("--work-dir", type=pathlib.Path, help="folder that keeps the files")
    arguments = parser.parse_args()
    if max(arguments.threads) > count_cores():
        parser.error(f"There are {count_cores()} cores. Received: --threads={arguments.threads}")
    settings = QUICK if arguments.quick else FULL
    with contextlib.ExitStack() as stack:
        work_dir = arguments.work_dir or stack.enter_context(tempfile.TemporaryDirectory())
        files = stack.enter_context(_inference_files.Files(pathlib.Path(work_dir)))
        bench = Bench(files, arguments.threads, None, settings)
        versions = bench.versions({**PACKAGES, **_OPENVINO})
        results = {}
        for name in arguments.only:
            results[name] = {n: measure(bench, name, n) for n in arguments.threads}
            folder = QUICK_RESULTS if arguments.quick else RESULTS
            write_result(folder / "inference", "int8", settings, versions, results)


if __name__ == "__main__":
    main()
