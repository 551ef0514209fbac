"""Networks that are pruned in one shot: accuracy, and what that takes.

    python -m benchmarks.one_shot ds_cnn --data path/to/packs
    python -m benchmarks.one_shot cost
    python -m benchmarks.one_shot cifar --data path/to/packs      # trains networks first, once
    python -m benchmarks.one_shot reviews --data path/to/packs

`ds_cnn` is Arm's DS-CNN-L with the weights that Arm trained. Examples to calibrate on are
drawn from `part == "tune"`; settings were chosen on `val`; `test` is what the tables show.

Figures are written as they come. A run that was cut goes on where it was; to measure anew, delete
`benchmarks/results/one_shot_*.json` first.
"""

import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

from benchmarks._cells import Cells

NUM_EXAMPLES = 512
TARGETS = (0.5, "2:4", 0.75, 0.875)
METHODS = ("magnitude", "wanda", "sparsegpt", "reconstruct")


def pattern(target):
    """Arguments of `keras_trim.prune` for a sparsity, `"2:4"`, or (sparsity, block size)."""
    if target == "2:4":
        return {"sparsity": None, "sparsity_m_by_n": (2, 4)}
    if isinstance(target, tuple):
        return {"sparsity": target[0], "block_size": target[1]}
    return {"sparsity": target}


class Clock:
    """Seconds since it was made: on the wall, and of all cores (a busy machine adds none)."""

    def __init__(self):
        self._start = time.perf_counter(), time.process_time()

    def read(self):
        wall, cpu = self._start
        return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def measure_pruned(cells, key, model, weights, x, measure, *, target, method, **arguments):
    """Measures a model pruned in one shot, with its statistics left and with those estimated anew.

    Args:
        cells: `Cells`; figures go under `(*key, method)` and `(*key, method + " + statistics")`.
        key: Tuple of strings.
        model: Keras model; it is left pruned.
        weights: What `model.get_weights()` returns for the dense model.
        x: Examples to calibrate on.
        measure: Function without arguments that returns a dict of figures of the model.
        target, method: What `pattern` takes; the method's name.
        **arguments: More arguments of `keras_trim.prune`.
    """
    import keras_trim

    clock = None
    arguments |= {"calibration_data": x, "batch_size": 128}

    def prune():
        nonlocal clock
        model.set_weights(weights)
        clock = Clock()
        keras_trim.prune(
            model, **pattern(target), method=method, update_statistics=False, **arguments
        )
        return measure_after(clock)

    def estimate():
        if clock is None:
            prune()
        estimate_statistics(model, x)
        return measure_after(clock)

    def measure_after(clock):
        return clock.read() | measure()

    cells.measure(*key, method, by=prune)
    cells.measure(*key, f"{method} + statistics", by=estimate)


def estimate_statistics(model, x):
    """Estimates batch normalization's statistics anew."""
    import keras_trim

    keras_trim.prune(model, 0.0, calibration_data=x, method="magnitude", batch_size=128)


def ds_cnn(arguments, cells):
    """Measures DS-CNN-L: target, draw of examples, method."""
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

    def examples(draw):
        return tune[np.random.default_rng(draw).choice(len(tune), NUM_EXAMPLES, False)]

    def estimated():
        estimate_statistics(model, examples(0))
        return measure()

    cells.measure("dense", by=measure)
    cells.measure("dense + statistics", by=estimated)
    for draw, method in itertools.product(range(arguments.draws), reversed(METHODS)):
        for target in TARGETS:
            if draw == 0 or method == "reconstruct":
                key = (target, f"draw {draw}")
                own = {"target": target, "method": method}
                measure_pruned(cells, key, model, weights, examples(draw), measure, **own)


def cost(arguments, cells):
    """Measures SparseGPT on a 4096x4096 layer, and seconds and memory of MobileNetV1 224."""

    def run(name):
        command = [sys.executable, "-m", "benchmarks._one_shot_worker", name]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
        environment |= {"OMP_NUM_THREADS": str(os.cpu_count()), "KERAS_BACKEND": arguments.backend}
        output = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout
        return json.loads(output.splitlines()[-1])

    for name in ("sparsegpt_4096", "mobilenet"):
        cells.measure(name, by=lambda name=name: run(name))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("ds_cnn", "cost", "cifar", "reviews"))
    parser.add_argument("--data", type=pathlib.Path, help="folder of the packs")
    parser.add_argument("--draws", type=int, default=3, help="draws of examples to calibrate on")
    parser.add_argument("--backend", default=os.environ.get("KERAS_BACKEND", "jax"))
    parser.add_argument("--most", type=int, help="new figures after which to end")
    arguments = parser.parse_args()
    os.environ["KERAS_BACKEND"] = arguments.backend
    settings = {"examples": NUM_EXAMPLES, "backend": arguments.backend}
    cells = Cells(f"one_shot_{arguments.what}", settings, arguments.most)
    if arguments.what in ("cifar", "reviews"):
        from benchmarks import _one_shot_trained

        getattr(_one_shot_trained, arguments.what)(arguments, cells)
    else:
        {"ds_cnn": ds_cnn, "cost": cost}[arguments.what](arguments, cells)


if __name__ == "__main__":
    main()
