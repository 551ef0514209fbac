"""Keyword spotting: Arm's DS-CNN-L on Speech Commands, from the weights that Arm trained.

    python -m experiments.keywords --data path/to/packs          # or a folder of wav files
    python -m experiments.keywords --data path/to/packs --measure

The packs are `speech_mfcc.npz` and `ds_cnn_l.npz` (README.md). Training takes the clips of version
0.01 and a part of the official test set, `tune`; settings are chosen on `val`, and tables show
`test`: clips of speakers that are in neither.
"""

import numpy as np

from benchmarks import _ds_cnn, _packs
from experiments import command
from experiments.task import Settings, Task

FULL = Settings(epochs=4, rates=(1e-3, 3e-4), weight_decay=1e-4)
QUICK = Settings(epochs=2, dense_epochs=1)
OFFICIAL = {"source": "official_test_v0.02"}


class Keywords(Task):
    name = "keywords"
    about_data = (
        "Google Speech Commands: 4,500 clips of version 0.01 and 1,970 of the official test set "
        "to train on, 583 to choose settings, 2,337 of other speakers to test"
    )

    def __init__(self, data, quick=False):
        self._data = data
        self._channels = 16 if quick else 276  # Arm's
        self.first_layer = None if quick else "conv_1"
        self.weights_are_given = not quick
        self.settings = QUICK if quick else FULL
        self.targets = (0.8,) if quick else self.goal.targets
        self.batch_size = 8 if quick else 100
        self._num_batches = 3 if quick else 100
        parts = [
            _packs.speech(data, part="tune", **OFFICIAL),
            _packs.speech(data, source="isolated_v0.01", part="train"),
        ]
        self._x = np.concatenate([x for x, _ in parts])
        self._labels = np.concatenate([y for _, y in parts])
        self._of_label = [np.flatnonzero(self._labels == i) for i in range(len(_ds_cnn.LABELS))]
        limit = 16 if quick else None
        self._parts = {
            part: [each[:limit] for each in _packs.speech(data, part=part, **OFFICIAL)]
            for part in ("val", "test")
        }
        self._silence = _packs.silence(data)

    def build(self, keras):
        model = _ds_cnn.build(keras, self._channels)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.9  # a few hundred steps, not Arm's 30,000
        return model

    def initial_weights(self, model):
        if self.weights_are_given:
            model.set_weights(_ds_cnn.load(self._data).get_weights())

    def loss(self, keras):
        return keras.losses.SparseCategoricalCrossentropy()

    def num_batches(self):
        return self._num_batches

    def batch(self, seed, epoch, index):
        """Clips of all labels alike, moved in time by up to five frames (0.1 s)."""
        rng = np.random.default_rng([seed, epoch, index])
        labels = rng.integers(0, len(self._of_label), self.batch_size)
        clips = np.stack([self._x[rng.choice(self._of_label[label])] for label in labels])
        return shift(clips, rng.integers(-5, 6, len(clips)), self._silence), labels

    def score(self, model, part):
        return 100 * _ds_cnn.accuracy(model, *self._parts[part])

    def examples(self):
        return self._x[:8]


def shift(clips, frames, silence):
    """Clips moved in time.

    Args:
        clips: Float array, (clips, frames, coefficients, 1).
        frames: Integers, (clips,): how far each is moved; later, if it is positive.
        silence: Float array, (coefficients,): fills the frames that are free then.
    """
    moved = np.empty_like(clips)
    moved[:] = silence[:, None]
    for target, clip, n in zip(moved, clips, frames, strict=True):
        if n >= 0:
            target[n:] = clip[: len(clip) - n]
        else:
            target[:n] = clip[-n:]
    return moved


def make_task(arguments):
    return Keywords(arguments.data, arguments.quick)


if __name__ == "__main__":
    command.run(command.parser(__doc__).parse_args(), make_task)
