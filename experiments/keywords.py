"""Keyword spotting: Arm's DS-CNN-L on Speech Commands, starting from Arm's trained weights.

    python -m experiments.keywords --data path/to/packs
    python -m experiments.keywords --data path/to/speech_commands --weights path/to/packs
    python -m experiments.keywords --data path/to/packs --measure

The packs are `speech_mfcc.npz` and `ds_cnn_l.npz` (README.md). The training set is the clips of
version 0.01 and `tune`, a part of the official test set. Settings are chosen on `val`. The tables
show `test`, whose speakers are in neither. A folder of Speech Commands' WAV files goes through the
same front end and has its own split. Without `--weights`, it trains the network from scratch.
"""

import pathlib

import numpy as np

from benchmarks import _ds_cnn, _packs
from experiments import command, speech_commands
from experiments.mfcc import SAMPLES, mfcc
from experiments.task import Settings, Task

FULL = Settings(epochs=4, rates=(1e-3, 3e-4), weight_decay=1e-4)
QUICK = Settings(epochs=2, dense_epochs=1)
OFFICIAL = {"source": "official_test_v0.02"}


class Keywords(Task):
    name = "keywords"
    module = "experiments.keywords"
    about_data = (
        "Google Speech Commands: 4,500 training clips from version 0.01 and 1,970 from the "
        "official test set, 583 validation clips, 2,337 test clips by other speakers"
    )

    def __init__(self, data, weights=None, quick=False):
        data = pathlib.Path(data)
        is_pack = (data / "speech_mfcc.npz").exists()
        self._weights = weights or (data if is_pack else None)
        self.command = {"weights": weights}
        self._channels = 16 if quick else 276  # Arm's
        self.first_layer = None if quick else "conv_1"
        self.weights_are_given = bool(self._weights) and not quick
        self.settings = QUICK if quick else FULL
        self.targets = (0.8,) if quick else self.goal.targets
        self.batch_size = 8 if quick else 100
        self._num_batches = 3 if quick else 100
        parts = _load_pack(data) if is_pack else speech_commands.load(data)
        self._x, self._labels = parts["train"]
        if not is_pack:
            counts = ", ".join(f"{len(parts[part][1]):,} {part}" for part in parts)
            self.about_data = f"Google Speech Commands, {data.name}: {counts}"
        self._indices_by_label = [
            indices
            for label in range(len(_ds_cnn.LABELS))
            if len(indices := np.flatnonzero(self._labels == label))
        ]
        limit = 16 if quick else None
        self._parts = {p: [each[:limit] for each in parts[p]] for p in ("val", "test")}
        self._silence = mfcc(np.zeros(SAMPLES, "int16"))[0]

    def build(self, keras):
        model = _ds_cnn.build(keras, self._channels)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.9  # we train for hundreds of steps, Arm for 30,000
        return model

    def initial_weights(self, model):
        if self.weights_are_given:
            model.set_weights(_ds_cnn.load(self._weights).get_weights())

    def loss(self, keras):
        return keras.losses.SparseCategoricalCrossentropy()

    def num_batches(self):
        return self._num_batches

    def batch(self, seed, epoch, index):
        """Returns a class-balanced batch of clips, shifted in time by up to 5 frames (0.1 s)."""
        rng = np.random.default_rng([seed, epoch, index])
        groups = rng.integers(0, len(self._indices_by_label), self.batch_size)
        chosen = [rng.choice(self._indices_by_label[group]) for group in groups]
        frames = rng.integers(-5, 6, self.batch_size)
        return shift(self._x[chosen], frames, self._silence), self._labels[chosen]

    def score(self, model, part):
        return 100 * _ds_cnn.accuracy(model, *self._parts[part])

    def examples(self):
        return self._x[:8]


def shift(clips, frames, silence):
    """Shifts clips in time.

    Args:
        clips: Float array of shape (clips, frames, coefficients, 1).
        frames: Integer array of shape (clips,): the shift of each clip. Positive means later.
        silence: Float array of shape (coefficients,), which fills the frames that become free.

    Returns:
        Array with the shape and dtype of `clips`.
    """
    shifted = np.empty_like(clips)
    shifted[:] = silence[:, None]
    for target, clip, n in zip(shifted, clips, frames, strict=True):
        if n >= 0:
            target[n:] = clip[: len(clip) - n]
        else:
            target[:n] = clip[-n:]
    return shifted


def _load_pack(folder):
    """Loads the packs. Returns a dict like that of `speech_commands.load`."""
    parts = {part: _packs.speech(folder, part=part, **OFFICIAL) for part in ("val", "test")}
    tune = _packs.speech(folder, part="tune", **OFFICIAL)
    older = _packs.speech(folder, source="isolated_v0.01", part="train")
    parts["train"] = tuple(map(np.concatenate, zip(tune, older, strict=True)))
    return parts


def make_task(arguments):
    return Keywords(arguments.data, arguments.weights, arguments.quick)


def parse(argv=None):
    parser = command.parser(__doc__)
    parser.add_argument("--weights", help="folder with `ds_cnn_l.npz`, if --data has WAV files")
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(parse(), make_task)
