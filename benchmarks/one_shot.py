"""Accuracy and cost of pruning networks in one shot.

    python -m benchmarks.one_shot ds_cnn --data path/to/packs
    python -m benchmarks.one_shot cost
    python -m benchmarks.one_shot cifar --data path/to/packs      # trains networks first, once
    python -m benchmarks.one_shot reviews --data path/to/packs

`ds_cnn` is Arm's DS-CNN-L with the weights that Arm trained. Calibration examples are drawn from
`part == "tune"`. Settings were chosen on `val`. The tables show `test`.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

from benchmarks._common import OUR_PACKAGES, RESULTS, package_versions, write_result

NUM_EXAMPLES = 512
TARGETS = (0.5, "2:4", 0.75, 0.875)
METHODS = ("magnitude", "wanda", "sparsegpt", "reconstruct")


def pattern(target):
    """Returns arguments of `keras_trim.prune` for a sparsity, "2:4", or (sparsity, block size)."""
    if target == "2:4":
        return {"sparsity": None, "sparsity_m_by_n": (2, 4)}
    if isinstance(target, tuple):
        return {"sparsity": target[0], "block_size": target[1]}
    return {"sparsity": target}


def prune(model, weights, x, target, method, **arguments):
    """Prunes a model from given weights. Returns the seconds that took."""
    import keras_trim

    model.set_weights(weights)
    start = time.perf_counter()
    keras_trim.prune(
        model, **pattern(target), calibration_data=x, method=method, batch_size=128, **arguments
    )
    return time.perf_counter() - start


def estimate_statistics(model, x):
    """Re-estimates batch normalization's statistics. Returns the seconds that took."""
    import keras_trim

    start = time.perf_counter()
    keras_trim.prune(model, 0.0, calibration_data=x, method="magnitude", batch_size=128)
    return time.perf_counter() - start


def summarize(runs):
    """Returns the mean and the values of each metric over several runs."""
    return {
        key: {"mean": statistics.mean(run[key] for run in runs), "all": [run[key] for run in runs]}
        for key in runs[0]
    }


def ds_cnn(arguments):
    """Dict of results on DS-CNN-L: target -> method -> with or without statistics."""
    from benchmarks import _ds_cnn, _packs

    published = {"source": "official_test_v0.02"}
    tune, _ = _packs.speech(arguments.data, part="tune", **published)
    parts = {
        name: _packs.speech(arguments.data, part=name, **published) for name in ("val", "test")
    }
    model = _ds_cnn.load(arguments.data)
    weights = model.get_weights()

    def measure():
        return {name: _ds_cnn.accuracy(model, *part) for name, part in parts.items()}

    results = {"dense": measure(), "draws": arguments.draws, "targets": {}}
    for method, target in itertools.product(reversed(METHODS), TARGETS):
        runs = {method: [], f"{method} + statistics": []}
        for draw in range(arguments.draws if method == "reconstruct" else 1):
            chosen = np.random.default_rng(draw).choice(len(tune), NUM_EXAMPLES, False)
            seconds = prune(model, weights, tune[chosen], target, method, update_statistics=False)
            runs[method].append(measure() | {"seconds": seconds})
            seconds += estimate_statistics(model, tune[chosen])
            runs[f"{method} + statistics"].append(measure() | {"seconds": seconds})
        found = {name: summarize(own) for name, own in runs.items()}
        results["targets"].setdefault(str(target), {}).update(found)
        print(target, json.dumps(found), flush=True)
        write(arguments, results)
    return results


def cost(arguments):
    """Dict: seconds of SparseGPT on a 4096x4096 layer; seconds and memory of MobileNetV1 224."""
    results = {}
    for name in ("sparsegpt_4096", "mobilenet"):
        command = [sys.executable, "-m", "benchmarks._one_shot_worker", name]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
        environment |= {"OMP_NUM_THREADS": str(os.cpu_count()), "KERAS_BACKEND": arguments.backend}
        output = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout
        results[name] = json.loads(output.splitlines()[-1])
        print(name, results[name], flush=True)
    return results


def write(arguments, results):
    """Writes the results so far."""
    settings = {"examples": NUM_EXAMPLES, "backend": arguments.backend, "cores": os.cpu_count()}
    versions = package_versions(OUR_PACKAGES)
    write_result(RESULTS, f"one_shot_{arguments.what}", settings, versions, results)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("ds_cnn", "cost", "cifar", "reviews"))
    parser.add_argument("--data", type=pathlib.Path, help="folder of the packs")
    parser.add_argument("--draws", type=int, default=3, help="draws of examples to calibrate on")
    parser.add_argument("--backend", default=os.environ.get("KERAS_BACKEND", "jax"))
    arguments = parser.parse_args()
    os.environ["KERAS_BACKEND"] = arguments.backend
    if arguments.what in ("cifar", "reviews"):
        from benchmarks import _one_shot_trained

        results = getattr(_one_shot_trained, arguments.what)(arguments)
    else:
        results = {"ds_cnn": ds_cnn, "cost": cost}[arguments.what](arguments)
    write(arguments, results)


if __name__ == "__main__":
    main()
