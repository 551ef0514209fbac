"""The models of the results page: their rows, the scores in TFMOT's pruning guide, and our goals.

The guide is https://www.tensorflow.org/model_optimization/guide/pruning. It reports accuracy in
percent, or BLEU.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Goal:
    """A model, and what its rows should reach.

    Args:
        title: String.
        targets: Tuple of floats (sparsities) and strings (N:M patterns), one for each sparse row.
        score: String. The name of the score.
        dense: Float. The guide's score for the dense model, or `None`.
        sparse: Dict: target -> the guide's score.
        within: Dict: target -> largest allowed drop in points, for targets that the guide does not
            report.
        with_tfmot: Boolean. Whether to train rows with TFMOT, too.
    """

    title: str
    targets: tuple
    score: str = "accuracy"
    dense: float | None = None
    sparse: dict = dataclasses.field(default_factory=dict)
    within: dict = dataclasses.field(default_factory=dict)
    with_tfmot: bool = False

    def drop(self, target):
        """Returns the largest allowed drop from the dense score in points, or `None`."""
        if target in self.sparse:
            return self.dense - self.sparse[target]
        return self.within.get(target)


GOALS = {
    "images_inception_v3": Goal(
        "InceptionV3",
        (0.5, "2:4", 0.75, 0.875),
        dense=78.1,
        sparse={0.5: 78.0, "2:4": 75.8, 0.75: 76.1, 0.875: 74.6},
    ),
    "images_mobilenet_v1": Goal(
        "MobileNetV1",
        (0.5, "2:4", 0.8, 0.9),
        dense=71.04,
        sparse={0.5: 70.84, "2:4": 67.35},
        with_tfmot=True,
    ),
    "images_mobilenet_v2": Goal(
        "MobileNetV2",
        (0.5, "2:4", 0.8, 0.9),
        dense=71.77,
        sparse={0.5: 69.64, "2:4": 66.75},
    ),
    "translation_en-de": Goal(
        "GNMT EN-DE",
        (0.8, 0.85, 0.9),
        score="BLEU",
        dense=26.77,
        sparse={0.8: 26.86, 0.85: 26.52, 0.9: 26.19},
    ),
    "translation_de-en": Goal(
        "GNMT DE-EN",
        (0.8, 0.85, 0.9),
        score="BLEU",
        dense=29.47,
        sparse={0.8: 29.50, 0.85: 29.24, 0.9: 28.81},
    ),
    "keywords": Goal(
        "DS-CNN-L",
        (0.5, "2:4", 0.75, 0.8, 0.875, 0.9),
        dense=95.23,
        sparse={0.5: 94.84, "2:4": 94.33},
        within={0.75: 1.5, 0.875: 3.0},
        with_tfmot=True,
    ),
    "mnist_cnn": Goal("MNIST CNN", (0.5, "2:4", 0.8, 0.9, 0.95)),
    "imdb_lstm": Goal("IMDB LSTM", (0.5, "2:4", 0.8, 0.9, 0.95)),
}
