"""How to prune one weight, and how that is saved."""

import dataclasses

import keras

from keras_trim.arguments import counted
from keras_trim.identity import describe, family, identify, match
from keras_trim.patterns import MatrixView, Pattern, make_pattern
from keras_trim.schedules import PruningSchedule


@dataclasses.dataclass(frozen=True)
class PruningSpec:
    """How to prune one weight: when and how much (`schedule`), in which shape (`pattern`)."""

    schedule: PruningSchedule
    pattern: Pattern

    @property
    def final_sparsity(self):
        """The sparsity the schedule ends with, or `None` if it does not say."""
        return getattr(self.schedule, "final_sparsity", None)

    def count_pruned(self, sparsity):
        return self.pattern.count_pruned(sparsity, self.final_sparsity)

    @property
    def target_zeros(self):
        """The minimum number of zeros once the schedule has ended, or `None`."""
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


def specs_to_config(specs, variables):
    """Converts the specs of weights to a dict of JSON types. Weights may share schedules.

    Args:
        specs: List of tuples (`keras.Variable`, `PruningSpec`).
        variables: List of all variables of the model or optimizer, including those in `specs`.
    """
    schedules = {id(spec.schedule): spec.schedule for _, spec in specs}
    families = {family(variable.path, variable.shape) for variable, _ in specs}
    # Include variables that are not pruned, for matching paths (see `identity`).
    listed = [v for v in variables if family(v.path, v.shape) in families]
    places = {id(variable): i for i, variable in enumerate(listed)}
    weights = []
    for variable, spec in specs:
        view = spec.pattern.view
        weights.append(
            {
                "variable": places[id(variable)],
                "trainable": bool(variable.trainable),
                "schedule": list(schedules).index(id(spec.schedule)),
                "view": [list(view.stack), list(view.inputs), list(view.outputs)],
                **spec.pattern.get_config(),
            }
        )
    return {
        "schedules": [keras.saving.serialize_keras_object(s) for s in schedules.values()],
        "weights": weights,
        "variables": [[path, list(shape)] for path, shape in identify(listed)],
    }


def specs_from_config(config, variables):
    """Inverts `specs_to_config` for the given variables.

    Returns:
        Dict: index in `variables` -> `PruningSpec`. Weights that were frozen when saved may be
        missing from the variables.

    Raises:
        ValueError: if any other weight is missing.
    """
    present = identify(variables)
    config = config if "variables" in config else _from_version_0_1(config, present)
    saved = [(path, tuple(shape)) for path, shape in config["variables"]]
    places = match(saved, present)
    schedules = [keras.saving.deserialize_keras_object(s) for s in config["schedules"]]
    specs, missing = {}, []
    for entry in config["weights"]:
        entry = dict(entry)
        saved_index, was_trainable = entry.pop("variable"), entry.pop("trainable")
        (path, shape), index = saved[saved_index], places[saved_index]
        schedule, view = schedules[entry.pop("schedule")], entry.pop("view")
        if index is not None:
            view = MatrixView(*(tuple(axes) for axes in view))
            specs[index] = PruningSpec(schedule, make_pattern(shape, view, path=path, **entry))
        elif was_trainable:
            missing.append((path, shape))
    if missing:
        others = [identity for i, identity in enumerate(present) if i not in specs]
        raise ValueError(
            counted(
                len(missing),
                "{weights that were|weight that was} being pruned when this was saved {are|is} not "
                "here, or not trainable: ",
            )
            + f"{describe(missing)}. Load the model with `compile=False` and mark it "
            "again, or call `keras_trim.strip_pruning(model)` before you save. (Keras restores "
            "optimizers from its own format only: save as `.keras`, not `.h5`.) "
            f"Received: {len(present)} trainable variables, the others of which are: "
            f"{describe(others)}"
        )
    return dict(sorted(specs.items()))


def _from_version_0_1(config, present):
    """Converts a config that identifies weights by position and path to today's form.

    A position counts if its variable differs from the saved one at most in numbers chosen by Keras.
    """
    variables, weights = [], []
    for entry in config["weights"]:
        entry = dict(entry)
        index, identity = entry.pop("index"), (entry.pop("path"), entry.pop("shape"))
        if index < len(present) and family(*present[index]) == family(*identity):
            identity = present[index]
        weights.append({"variable": len(variables), "trainable": True, **entry})
        variables.append(identity)
    return {**config, "variables": variables, "weights": weights}
