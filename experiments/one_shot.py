"""One-shot pruning of the image networks, from their dense checkpoints.

    python -m experiments.one_shot --data path/to/packs

Takes the checkpoints of seed 0 that `experiments.images` has left in the folder `--work`. The
tables are in docs/one_shot.md.
"""

import argparse
import pathlib

import keras
import numpy as np

from benchmarks._cells import Cells
from benchmarks._one_shot_measure import BUILD, NUM_EXAMPLES, measure_ways
from benchmarks._one_shot_trained import prune_all
from experiments.images import Images

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
        for zeros in (0.75, 0.875) if name == "mobilenet_v1" else ():
            measure_ways(
                cells,
                (f"{name} spread", zeros),
                model,
                weights,
                examples,
                measure,
                zeros=zeros,
                draws=1,
            )


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
