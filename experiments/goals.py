"""What the page that this project implements reports, row by row, and what is asked of a row here.

https://www.tensorflow.org/model_optimization/guide/pruning (accuracy in per cent, BLEU).
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Goal:
    """A model of the table.

    Args:
        title: String.
        targets: Tuple of sparsities and N:M patterns, the rows.
        score: String. The name of the score.
        dense: Float. The page's score of the dense model, or `None`.
        sparse: Dict: target -> the page's score.
        within: Dict: target -> by how much, in points, a row may miss the dense one, where the page
            has no figure.
        with_tfmot: Bool. Whether TFMOT has rows, too.
    """

    title: str
    targets: tuple
    score: str = "accuracy"
    dense: float | None = None
    sparse: dict = dataclasses.field(default_factory=dict)
    within: dict = dataclasses.field(default_factory=dict)
    with_tfmot: bool = False

    def drop(self, target):
        """Float: by how many points a row may fall short of the dense one, or `None`."""
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
