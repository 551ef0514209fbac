"""What an experiment says about its task; the rest is shared."""

import abc
import dataclasses

from experiments.goals import GOALS


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long and how a task's networks are trained; the same for all rows.

    Args:
        epochs: Integer. Further epochs from the dense checkpoint, for each row.
        rates: Tuple of floats. Learning rates to choose from on validation data.
        choice_target: The row on which settings are chosen.
        dense_epochs: Integer. Epochs of dense training; 0 if the weights are given.
        dense_rate: Float. Learning rate at which dense training begins.
        weight_decay: Float, of AdamW.
    """

    epochs: int
    rates: tuple = (1e-3,)
    choice_target: object = 0.8
    dense_epochs: int = 0
    dense_rate: float = 1e-3
    weight_decay: float = 0.0

    def schedule(self, steps):
        """Arguments of `PolynomialDecay`: zeros grow in the first 60 % of all steps.

        The end is on the grid of updates: TFMOT would miss its final sparsity otherwise.
        """
        frequency = max(1, steps * 3 // 5 // 20)
        end = frequency * max(1, steps * 3 // 5 // frequency)
        return {"begin_step": 0, "end_step": end, "frequency": frequency}


class Task(abc.ABC):
    """A network, its data and its score.

    Attributes:
        name: String. Of the file with results, and of its goal (`experiments.goals`).
        targets: Tuple of sparsities (floats) and N:M patterns (`"2:4"`).
        first_layer: String. The layer that may stay dense, or `None` if that is no question.
        module: String. Where `make_task` is, for TFMOT's process.
        settings: `Settings`.
        weights_are_given: Bool. Whether all seeds begin with `initial_weights`.
        command: Dict. Arguments of the command line that say which of the module's tasks this is.
        can_be_timed: Bool. Whether the runtimes take the model.
        about_data: String, for tables: which data, what was cut.
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
        """The network without its training settings, in either Keras."""

    def initial_weights(self, model):  # noqa: B027 (a hook, for tasks with given weights)
        """Gives a model the weights that dense training begins with, if they are not random."""

    @abc.abstractmethod
    def loss(self, keras):
        """The loss, in either Keras."""

    @abc.abstractmethod
    def num_batches(self):
        """Integer: batches of an epoch."""

    @abc.abstractmethod
    def batch(self, seed, epoch, index):
        """Inputs and labels as NumPy arrays: a function of the arguments, so that runs resume."""

    @abc.abstractmethod
    def score(self, model, part):
        """Float, in per cent or points.

        Args:
            model: Keras model.
            part: `"val"` or `"test"`.
        """

    def report(self, model):
        """Dict of all scores of a finished model, `"val"` and `"test"` at least."""
        return {part: self.score(model, part) for part in ("val", "test")}

    @abc.abstractmethod
    def examples(self):
        """A few inputs, to compare what files return with what the model did."""
