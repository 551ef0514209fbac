"""The interface of a task. Everything else is shared by all experiments."""

import abc
import dataclasses

from experiments.goals import GOALS


@dataclasses.dataclass(frozen=True)
class Settings:
    """Training settings, the same for all rows of a task.

    Args:
        epochs: Integer. Epochs that each row trains from the dense checkpoint.
        rates: Tuple of floats. Learning rates to choose from on the validation set.
        choice_target: Target of the row on which settings are chosen.
        dense_epochs: Integer. Epochs of dense training; 0 if the weights are given.
        dense_rate: Float. Initial learning rate of dense training.
        weight_decay: Float. Weight decay of AdamW.
        clip_norm: Float. Largest norm of all gradients together, or `None`.
        new_statistics: Boolean. Whether batch normalization's statistics are estimated anew, from
            512 training examples, once a row is trained.
    """

    epochs: int
    rates: tuple = (1e-3,)
    choice_target: object = 0.8
    dense_epochs: int = 0
    dense_rate: float = 1e-3
    weight_decay: float = 0.0
    clip_norm: float | None = None
    new_statistics: bool = False

    def schedule(self, steps):
        """Returns the arguments of `PolynomialDecay`.

        Sparsity grows during the first 60 % of the steps. The end step is a multiple of
        `frequency`; otherwise TFMOT would miss its final sparsity.
        """
        frequency = max(1, steps * 3 // 5 // 20)
        end = frequency * max(1, steps * 3 // 5 // frequency)
        return {"begin_step": 0, "end_step": end, "frequency": frequency}


class Task(abc.ABC):
    """A network, its data and its score.

    Attributes:
        name: String. Key of `experiments.goals.GOALS`, and name of the results file.
        targets: Tuple of floats (sparsities) and strings (N:M patterns such as `"2:4"`).
        first_layer: String. The layer that may stay dense, or `None` to always prune all layers.
        module: String. The module with `make_task`, which TFMOT's process imports.
        settings: `Settings`.
        weights_are_given: Boolean. Whether all seeds start from `initial_weights`.
        command: Dict. Command-line arguments that select this task within its module.
        can_be_timed: Boolean. Whether all runtimes support the model.
        about_data: String. Describes the data in the tables.
    """

    name = module = about_data = ""
    targets = ()
    first_layer = None
    settings = None
    weights_are_given = False
    can_be_timed = True
    command = {}

    @property
    def goal(self):
        return GOALS[self.name]

    batch_size = 100

    @abc.abstractmethod
    def build(self, keras):
        """Returns the uncompiled network, in Keras 3 or Keras 2."""

    def initial_weights(self, model):  # noqa: B027 (a hook, for tasks with given weights)
        """Sets the weights to start from. Does nothing by default: they stay random."""

    @abc.abstractmethod
    def loss(self, keras):
        """Returns the loss, in Keras 3 or Keras 2."""

    @abc.abstractmethod
    def num_batches(self):
        """Returns the number of batches per epoch."""

    @abc.abstractmethod
    def batch(self, seed, epoch, index):
        """Returns the inputs and labels of a batch as NumPy arrays.

        They must depend only on the arguments, so that a run can resume within an epoch.
        """

    @abc.abstractmethod
    def score(self, model, part):
        """Returns the score of a model: accuracy in percent, or BLEU.

        Args:
            model: Keras model.
            part: `"val"` or `"test"`.
        """

    def report(self, model):
        """Returns a dict of a finished model's scores, including `"val"` and `"test"`."""
        return {part: self.score(model, part) for part in ("val", "test")}

    @abc.abstractmethod
    def examples(self):
        """Returns a few inputs, to check that an exported file computes the same as the model."""
