"""How a single weight is pruned, and how that is saved."""

import dataclasses

import keras

from keras_trim.patterns import MatrixView, Pattern, make_pattern
from keras_trim.schedules import PruningSchedule


@dataclasses.dataclass(frozen=True)
class PruningSpec:
    """How one weight is pruned: when and how much (`schedule`), in which shape (`pattern`)."""

    schedule: PruningSchedule
    pattern: Pattern

    @property
    def final_sparsity(self):
        """The sparsity the schedule ends with, or `None` if it does not tell."""
        return getattr(self.schedule, "final_sparsity", None)

    def count_pruned(self, sparsity):
        return self.pattern.count_pruned(sparsity, self.final_sparsity)

    @property
    def target_zeros(self):
        """The least number of zeros when the schedule has ended, or `None`."""
        if self.final_sparsity is None:
            return None
        return self.pattern.count_zeros(self.count_pruned(float(self.final_sparsity)))

    @property
    def first_zeros(self):
        """The number of zeros that the schedule's first update asks for, or `None`."""
        if not hasattr(self.schedule, "sparsity_at"):
            return None
        first = self.schedule.sparsity_at(self.schedule.begin_step)
        return self.pattern.count_zeros(self.count_pruned(first))


def specs_to_config(pruned_weights):
    """The specs of a list of `PrunedWeight` as a dict of JSON types, schedules shared."""
    schedules = {id(weight.spec.schedule): weight.spec.schedule for weight in pruned_weights}
    weights = []
    for weight in pruned_weights:
        view = weight.spec.pattern.view
        weights.append(
            {
                "index": weight.index,
                "path": weight.variable.path,
                "shape": list(weight.variable.shape),
                "schedule": list(schedules).index(id(weight.spec.schedule)),
                "view": [list(view.stack), list(view.inputs), list(view.outputs)],
                **weight.spec.pattern.get_config(),
            }
        )
    return {
        "schedules": [keras.saving.serialize_keras_object(s) for s in schedules.values()],
        "weights": weights,
    }


def specs_from_config(config, variables):
    """The reverse of `specs_to_config`, checked against the variables of the model.

    Weights are found by their place among the variables, as Keras finds an optimizer's own state;
    names may differ from one run to the next.

    Returns:
        Dict: index among `variables` -> `PruningSpec`.
    """
    if not variables:
        raise ValueError(
            "A PruningOptimizer cannot be restored for a model without trainable variables. Keras "
            "restores optimizers only from its own format: save the model as `.keras`, or load the "
            "`.h5` file with `compile=False`. Received: 0 trainable variables"
        )
    schedules = [keras.saving.deserialize_keras_object(s) for s in config["schedules"]]
    specs = {}
    for entry in config["weights"]:
        entry = dict(entry)
        index, path, shape = entry.pop("index"), entry.pop("path"), tuple(entry.pop("shape"))
        if index >= len(variables) or tuple(variables[index].shape) != shape:
            raise ValueError(
                "The model is not the one that this PruningOptimizer was saved with: its trainable "
                f"variable {index} was '{path}' of shape {shape}. "
                f"Received: {[(v.path, tuple(v.shape)) for v in variables[index : index + 1]]}"
            )
        schedule = schedules[entry.pop("schedule")]
        view = MatrixView(*(tuple(axes) for axes in entry.pop("view")))
        specs[index] = PruningSpec(schedule, make_pattern(shape, view, path=path, **entry))
    return specs
