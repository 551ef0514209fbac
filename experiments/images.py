"""Image classification with the networks of `keras.applications`.

    python -m experiments.images --model mobilenet_v1 --data path/to/cifar10_jpeg.npz
    python -m experiments.images --model inception_v3 --data path/to/imagenet

`--data` is `cifar10` (downloaded), a pack (README.md), or a folder in ImageNet's layout:
`train/<class>/*.jpg`, `val/<class>/*.jpg`. On folders, networks run at 224 or 299 pixels and full
width. On packs and CIFAR-10 they run on smaller images; the tables say which size and width.
"""

import dataclasses
import pathlib

import numpy as np

from experiments import command, pictures
from experiments.task import Settings, Task

FIRST_LAYERS = {"mobilenet_v1": "conv1", "mobilenet_v2": "Conv1", "inception_v3": "conv2d"}
SMALL = Settings(epochs=4, rates=(1e-3, 3e-4), dense_epochs=20, dense_rate=2e-3, weight_decay=1e-3)
# The rate that both MobileNets chose: a trial of InceptionV3 costs as much as a row. Its moving
# averages trail 100 steps behind, and a row has fewer after the last mask update.
FEW = dataclasses.replace(SMALL, rates=(1e-3,), choice_target=0.75, new_statistics=True)
# As in the networks' papers, except for AdamW.
IMAGENET = Settings(
    epochs=20, rates=(3e-4, 1e-4), dense_epochs=100, dense_rate=1e-3, weight_decay=1e-3
)
QUICK = Settings(epochs=2, dense_epochs=1)


class Images(Task):
    module = "experiments.images"
    batch_size = 128

    def __init__(self, model, data, size=None, width=None, parts=None, quick=False):
        is_small = data == "cifar10" or str(data).endswith(".npz")
        small_size = 75 if model == "inception_v3" else 32
        self._model = model
        self._size = size or (small_size if is_small else {"inception_v3": 299}.get(model, 224))
        self._width = width or (0.5 if is_small and model == "mobilenet_v1" else 1.0)
        self.name = f"images_{model}"
        self.first_layer = None if quick else FIRST_LAYERS[model]
        self.command = {"model": model, "size": size, "width": width}
        self.targets = (0.8,) if quick else self.goal.targets
        self._parts = parts or pictures.load(data)
        small = FEW if len(self._parts["train"]) < 10_000 else SMALL
        self.settings = QUICK if quick else small if is_small else IMAGENET
        self._limit = 16 if quick else None
        if is_small:  # the MobileNets take less than twice as long for 256 images as for 128
            self.batch_size = 64 if model == "inception_v3" else 256
        if quick:
            self.batch_size = 8
        self._quick = quick
        self.about_data = (
            f"{pathlib.Path(data).name}: {len(self._parts['train']):,} training images at "
            f"{self._size}x{self._size} pixels, width {self._width}"
        )
        self._num_classes = 1 + max(int(part.labels.max()) for part in self._parts.values())

    def build(self, keras):
        arguments = {
            "input_shape": (self._size, self._size, 3),
            "weights": None,
            "classes": self._num_classes,
            "classifier_activation": None,
        }
        if self._model == "inception_v3":
            return keras.applications.InceptionV3(**arguments)
        make = {
            "mobilenet_v1": keras.applications.MobileNet,
            "mobilenet_v2": keras.applications.MobileNetV2,
        }[self._model]
        model = make(alpha=self._width, **arguments)
        if self._size >= 96:
            return model
        if self._model == "mobilenet_v1":
            return with_settings(model, lambda name: name == "conv1", strides=(1, 1))
        # MobileNetV2's 0.999 averages over more steps than a small data set has in an epoch.
        return with_settings(model, lambda name: "bn" in name.lower(), momentum=0.99)

    def loss(self, keras):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def num_batches(self):
        return 3 if self._quick else len(self._parts["train"]) // self.batch_size

    def batch(self, seed, epoch, index):
        part = self._parts["train"]
        order = np.random.default_rng([seed, epoch]).permutation(len(part))
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        rng = np.random.default_rng([seed, epoch, index])
        return part.read(chosen, self._size, rng), part.labels[chosen]

    def score(self, model, part):
        part = self._parts[part]
        correct, size = 0, self._limit or 1000
        for start in range(0, self._limit or len(part), size):
            chosen = range(start, min(start + size, len(part)))
            predictions = model.predict(part.read(chosen, self._size), verbose=0).argmax(-1)
            correct += int(np.sum(predictions == part.labels[chosen.start : chosen.stop]))
        return 100 * correct / (self._limit or len(part))

    def examples(self, count=4, seed=0):
        """Returns training images as the network takes them, not augmented."""
        part = self._parts["train"]
        chosen = np.random.default_rng(seed).choice(len(part), count, replace=False)
        return part.read(chosen, self._size)


def with_settings(model, matches, **settings):
    """Returns a new model with the same architecture, except for some layers' settings.

    Small images need this: MobileNetV1 would shrink them to a single pixel halfway through.

    Args:
        model: Keras model.
        matches: Function: name of a layer -> whether to change its settings.
        **settings: New values for the layers' configurations.
    """
    config = model.get_config()
    for each in config["layers"]:
        if matches(each["config"]["name"]):
            each["config"].update(settings)
    return type(model).from_config(config)


def make_task(arguments):
    return Images(
        arguments.model,
        arguments.data,
        arguments.size,
        arguments.width,
        quick=arguments.quick,
    )


def parse(argv=None):
    parser = command.parser(__doc__)
    parser.add_argument("--model", choices=FIRST_LAYERS, required=True)
    parser.add_argument("--size", type=int, help="height and width of the images in pixels")
    parser.add_argument("--width", type=float, help="width multiplier (alpha) of the MobileNets")
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(parse(), make_task)
