"""One-shot pruning of the image networks, from their dense checkpoints.

    python -m experiments.one_shot --data path/to/packs

Takes the checkpoints of seed 0 that `experiments.images` has left in the folder `--work`. The
tables are in docs/one_shot.md.
"""

import argparse
import pathlib

import keras
import numpy as np

import keras_trim
from benchmarks._cells import Cells
from benchmarks._one_shot_measure import BUILD, NUM_EXAMPLES, measure_ways, sensitivities
from benchmarks._one_shot_trained import prune_all
from experiments import training
from experiments.command import HERE
from experiments.images import Images
from experiments.records import Records

PACKS = {
    "mobilenet_v1": "cifar10_jpeg.npz",
    "mobilenet_v2": "cifar10_jpeg.npz",
    "inception_v3": "clothing160.npz",
}


def images(arguments, cells):
    """Measures the networks of docs/results.md, beginning with their dense weights of seed 0."""
    for name, pack in PACKS.items():
        start = arguments.work / f"images_{name}" / "start-0.npz"
        if not start.exists():
            print(f"{name}: left out, because there is no {start}")
            continue
        task = Images(name, arguments.data / pack)
        model = task.build(keras)
        with np.load(start) as arrays:
            weights = [arrays[key] for key in arrays.files]
        model.set_weights(weights)

        def examples(draw, task=task):
            return task.examples(NUM_EXAMPLES, draw)

        def measure(model=model, task=task):
            return {part: task.score(model, part) / 100 for part in ("val", "test")}

        prune_all(
            cells,
            name,
            model,
            examples(0),
            measure,
            (0.5, "2:4", 0.75, 0.875),
            ("reconstruct", "magnitude"),
        )
        if name == "mobilenet_v1":
            spread(cells, task, model, weights, examples, measure)


def spread(cells, task, model, weights, examples, measure):
    """Measures ways to spread zeros over a network, in one shot and when it is trained on."""
    for zeros in (0.75, 0.875):
        measure_ways(
            cells,
            ("mobilenet_v1 spread", zeros),
            model,
            weights,
            examples,
            measure,
            zeros=zeros,
            draws=1,
        )
    for zeros in (0.8, 0.9):
        cells.measure(*("mobilenet_v1 trained", zeros, "uniform"), by=lambda z=zeros: known(z))
        model.set_weights(weights)
        allocation = keras_trim.budget(sensitivities(model, examples(0)), zeros=zeros)
        cells.measure(
            *("mobilenet_v1 trained", zeros, "sensitivity"),
            by=lambda allocation=allocation: train(task, weights, allocation),
        )


def known(target):
    """Returns the accuracies of a row of MobileNetV1 in docs/results.md."""
    (row,) = Records(HERE / "results" / "images_mobilenet_v1.jsonl").find(
        kind="row", library="keras-trim", seed=0, target=target, backend="tensorflow"
    )
    return {part: row[part] / 100 for part in ("val", "test")}


def train(task, weights, allocation):
    """Trains a row of docs/results.md, with other sparsities, and returns its accuracies."""
    model = training.train_on(
        task, weights, allocation, seed=0, rate=task.settings.rates[0], label="by sensitivity"
    )
    rows = keras_trim.sparsity_report(model).pruned_rows
    zeros = sum(row.zeros for row in rows) / sum(row.size for row in rows)
    return {part: task.score(model, part) / 100 for part in ("val", "test")} | {"zeros": zeros}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the packs")
    parser.add_argument("--work", type=pathlib.Path, default=BUILD / "experiments")
    arguments = parser.parse_args()
    settings = {"examples": NUM_EXAMPLES, "backend": keras.backend.backend()}
    images(arguments, Cells("one_shot_images", settings))


if __name__ == "__main__":
    main()
