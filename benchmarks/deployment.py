"""Sizes of exported LiteRT files, and how fast LiteRT runs Dense layers pruned in blocks.

    python -m benchmarks.deployment [--quick]

Sizes: MobileNetV1 224 with random normal weights, its kernels pruned by magnitude. Speed: two
layers of 2048 x 2048, one thread, medians over interleaved rounds of 4 runs. Writes
`results/deployment.json`.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import argparse
import pathlib
import statistics
import tempfile
import time
import warnings

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

import keras_trim
from benchmarks import _common

_WIDTH = 2048
_SPARSITIES = (0.5, 0.7, 0.75, 0.8, 0.9)


def _export(model, path, weights=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return keras_trim.export(model, path, weights=weights)


def _sizes(path, side):
    model = keras.applications.MobileNet(weights=None, input_shape=(side, side, 3))
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if len(variable.shape) >= 2:
            variable.assign(rng.standard_normal(variable.shape, "float32") * 0.05)
    dense = model.get_weights()
    results = {}
    patterns = {"dense": None, "2:4": {"sparsity": 0.5, "sparsity_m_by_n": (2, 4)}}
    patterns |= {f"{sparsity:.0%}": {"sparsity": sparsity} for sparsity in (0.8, 0.9)}
    for name, pattern in patterns.items():
        model.set_weights(dense)
        if pattern:
            keras_trim.prune(model, **pattern)
        results[name] = {}
        for weights in (None, "float16", "int8"):
            file = _export(model, path, weights)
            results[name][weights or "float32"] = {
                "bytes": file.num_bytes,
                "is_sparse": file.is_sparse,
            }
    return results


def _two_layers(sparsity, block_size):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((_WIDTH,)),
            keras.layers.Dense(_WIDTH, activation="relu"),
            keras.layers.Dense(_WIDTH),
        ]
    )
    return keras_trim.prune(model, sparsity, block_size=block_size) if sparsity else model


def _runner(path, batch_size):
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, (batch_size, _WIDTH))
    interpreter.allocate_tensors()
    x = np.random.default_rng(1).standard_normal((batch_size, _WIDTH), "float32")
    interpreter.set_tensor(index, x)
    interpreter.invoke()  # the first run packs the weights
    return interpreter


def _times(folder, rounds):
    cases = {"dense": (0, (1, 1)), "80%, single weights": (0.8, (1, 1))}
    cases |= {f"{sparsity:.0%}, blocks of 4 inputs": (sparsity, (4, 1)) for sparsity in _SPARSITIES}
    for name, case in cases.items():
        _export(_two_layers(*case), folder / name)
    results = {}
    for batch_size in (1, 8):
        runners = {name: _runner(folder / name, batch_size) for name in cases}
        times = {name: [] for name in cases}
        for _ in range(rounds):
            for name, runner in runners.items():
                runner.invoke()  # brings the weights back into the cache
                for _ in range(4):
                    start = time.perf_counter()
                    runner.invoke()
                    times[name].append(time.perf_counter() - start)
        results[f"batch {batch_size}"] = {
            name: {"median_ms": 1e3 * statistics.median(values)} for name, values in times.items()
        }
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, into build/benchmarks")
    quick = parser.parse_args().quick
    rounds = 2 if quick else 50
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        results = {
            "dense_layers": _times(folder, rounds),
            "mobilenet": _sizes(folder / "model", 96 if quick else 224),
        }
    packages = (*_common.OUR_PACKAGES, "ai-edge-litert")
    _common.write_result(
        _common.QUICK_RESULTS if quick else _common.RESULTS,
        "deployment",
        {"rounds": rounds, "threads": 1},
        {"keras-trim": _common.package_versions(packages)},
        results,
    )


if __name__ == "__main__":
    main()
