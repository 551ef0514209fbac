"""Accuracy and cost of pruning networks in one shot.

    python -m benchmarks.one_shot ds_cnn --data path/to/packs
    python -m benchmarks.one_shot spread --data path/to/packs     # ways to spread zeros over it
    python -m benchmarks.one_shot digits     # scikit-learn's data, which needs no packs
    python -m benchmarks.one_shot cost
    python -m benchmarks.one_shot cifar --data path/to/packs      # trains networks first, once
    python -m benchmarks.one_shot reviews --data path/to/packs

`ds_cnn` and `spread` use Arm's DS-CNN-L with the weights that Arm trained. Calibration examples are
drawn from `part == "tune"`. Settings were chosen on `val`. The tables show `test`.
`experiments.one_shot` measures the networks of docs/results.md.

Results are saved as they come, and an interrupted run resumes. To measure everything again, delete
`benchmarks/results/one_shot_*.json` first.
"""

import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

from benchmarks._cells import Cells
from benchmarks._one_shot_measure import (
    NUM_EXAMPLES,
    estimate_statistics,
    measure_pruned,
    measure_ways,
)

TARGETS = (0.5, "2:4", 0.75, 0.875)
METHODS = ("magnitude", "wanda", "sparsegpt", "reconstruct")


class DsCnn:
    """DS-CNN-L, with calibration clips and validation and test clips.

    Args:
        folder: Path of the packs.
    """

    def __init__(self, folder):
        from benchmarks import _ds_cnn, _packs

        published = {"source": "official_test_v0.02"}
        self._tune, _ = _packs.speech(folder, part="tune", **published)
        self._parts = {
            name: _packs.speech(folder, part=name, **published) for name in ("val", "test")
        }
        self._accuracy = _ds_cnn.accuracy
        self.model = _ds_cnn.load(folder)
        self.weights = self.model.get_weights()

    def measure(self):
        """Returns a dict: part of the clips -> accuracy."""
        return {name: self._accuracy(self.model, *part) for name, part in self._parts.items()}

    def examples(self, draw):
        """Returns calibration clips, an array without labels."""
        chosen = np.random.default_rng(draw).choice(len(self._tune), NUM_EXAMPLES, False)
        return self._tune[chosen]


def ds_cnn(arguments, cells):
    """Measures DS-CNN-L for each target, draw of examples and method."""
    network = DsCnn(arguments.data)

    def estimated():
        estimate_statistics(network.model, network.examples(0))
        return network.measure()

    cells.measure("dense", by=network.measure)
    cells.measure("dense + statistics", by=estimated)
    for method, draw in itertools.product(reversed(METHODS), range(arguments.draws)):
        for target in TARGETS:
            if draw == 0 or method == "reconstruct":
                measure_pruned(
                    cells,
                    (target, f"draw {draw}"),
                    network.model,
                    network.weights,
                    network.examples(draw),
                    network.measure,
                    target=target,
                    method=method,
                )


def spread(arguments, cells):
    """Compares ways to spread the same number of zeros over DS-CNN-L's weights."""
    network = DsCnn(arguments.data)
    for zeros in (0.75, 0.875):
        measure_ways(
            cells,
            (zeros,),
            network.model,
            network.weights,
            network.examples,
            network.measure,
            zeros=zeros,
            draws=arguments.draws,
        )


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
    own = {"ds_cnn": ds_cnn, "spread": spread, "cost": cost}
    trained = ("cifar", "reviews")
    parser.add_argument("what", choices=(*own, "digits", *trained))
    parser.add_argument("--data", type=pathlib.Path, help="folder of the packs")
    parser.add_argument("--draws", type=int, default=3, help="draws of calibration examples")
    parser.add_argument("--backend", default=os.environ.get("KERAS_BACKEND", "jax"))
    parser.add_argument("--most", type=int, help="stop after this many new results")
    arguments = parser.parse_args()
    os.environ["KERAS_BACKEND"] = arguments.backend
    settings = {"examples": NUM_EXAMPLES, "backend": arguments.backend}
    cells = Cells(f"one_shot_{arguments.what}", settings, arguments.most)
    if arguments.what == "digits":
        from benchmarks._one_shot_digits import digits

        digits(arguments, cells)
    elif arguments.what in trained:
        from benchmarks import _one_shot_trained

        getattr(_one_shot_trained, arguments.what)(arguments, cells)
    else:
        own[arguments.what](arguments, cells)


if __name__ == "__main__":
    main()
