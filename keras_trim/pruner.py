"""Prunes after the steps of optimizers outside Keras: `torch.optim`, optax, your own."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_trim import backend, guard, torch_optimizers
from keras_trim.annotations import changes, check_marks, get_spec, marked_variables
from keras_trim.arguments import check_model, counted
from keras_trim.hosts import to_numpy
from keras_trim.identity import match, names
from keras_trim.masking import Masking, mask_initializer
from keras_trim.schedule_groups import NEVER, PrunedWeight, group_by_schedule

_MASK = "mask/"  # begins the names of masks in `state_dict`


class Pruner:
    """Prunes the marked weights of a model in loops whose optimizer is not a Keras optimizer.

    Call `apply` after each optimizer step (on JAX `stateless_apply`, inside the compiled step). It
    counts the step, computes new masks if the schedule says so, and zeros the pruned weights, as
    `keras_trim.PruningOptimizer` does for a Keras optimizer.

    On PyTorch, a step of a `torch.optim` optimizer raises an error if it would move marked weights
    that no `Pruner` prunes, or if `apply` was not called after the previous step. On the other
    backends, only `keras_trim.strip_pruning` and `sparsity_report` notice a forgotten call.

    Frozen weights (`trainable=False`) are left alone. When they are trained again, or for the first
    time, they catch up with the schedule.

    Args:
        model: Built `keras.Model` or layer, marked by `keras_trim.prune_low_magnitude`. Its
            trainable weights are pruned.

    Raises:
        ValueError: if the model is not built, or none of its trainable weights is marked.

    Example:

    ```python
    keras_trim.prune_low_magnitude(model, keras_trim.PolynomialDecay(0.0, 0.8, 0, 1000))
    pruner = keras_trim.Pruner(model)
    # then, in your own training loop:
    optimizer.step()
    pruner.apply()
    ```
    """

    def __init__(self, model: keras.layers.Layer) -> None:
        check_model(model, takes_layers=True)
        guard.install()
        marked = marked_variables(model)
        if not any(variable.trainable for variable in marked):
            raise ValueError(
                "Nothing to prune: none of the trainable weights is marked. Call "
                "`keras_trim.prune_low_magnitude(model, ...)` first. "
                f"Received: model={model.name}, {len(model.trainable_variables)} trainable weights"
            )
        self._model = model
        self._changes = changes()
        self._strategy = backend.current_strategy()
        self._step = keras.Variable(
            0, dtype="int32", trainable=False, name="step", aggregation="only_first_replica"
        )
        self.pruned_weights: list[PrunedWeight] = [
            PrunedWeight(i, i, v, get_spec(v), _mask(v, get_spec(v))) for i, v in enumerate(marked)
        ]
        self._pruned_steps = keras.Variable(
            np.full(len(marked), NEVER, "int32"),
            dtype="int32",
            trainable=False,
            name="pruned_steps",
            aggregation="only_first_replica",
        )
        groups = group_by_schedule(self.pruned_weights)
        self._masking = Masking(groups, self._pruned_steps, {}, self._strategy)
        torch_optimizers.expect(self)

    @property
    def variables(self) -> list[keras.Variable]:
        """List of Keras variables that make up the whole state: step counters and masks."""
        return [self._step, self._pruned_steps, *(weight.mask for weight in self.pruned_weights)]

    @property
    def iterations(self) -> keras.Variable:
        """Scalar int32 variable: the number of finished steps."""
        return self._step

    def apply(self) -> None:
        """Ends a step. Call it after the optimizer has moved the weights.

        Raises:
            ValueError: if marks were set or taken off since this `Pruner` was made.
        """
        self._check_marks()
        torch_optimizers.applied(self)
        backend.on_all_replicas(self._apply, self._strategy)

    def _check_marks(self):
        if self._changes != changes():  # marks of any model: few programs set them in between
            cure = "make a new `keras_trim.Pruner(model)`, or none after `strip_pruning`"
            check_marks(self.pruned_weights, marked_variables(self._model), cure)
            self._changes = changes()

    @backend.outside_graph
    def _apply(self):
        before = backend.read_step(self._step)
        self._step.assign_add(1)
        self._masking.prune(before, backend.read_step(self._step))

    def stateless_apply(
        self, pruner_variables: Sequence[Any], trainable_variables: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        """Does what `apply` does as a pure function, for JAX.

        Args:
            pruner_variables: List of arrays: values of `pruner.variables`.
            trainable_variables: List of arrays: values of `model.trainable_variables`, as moved by
                the optimizer.

        Returns:
            A tuple `(trainable_variables, pruner_variables)`, like `stateless_apply` of a Keras
            optimizer.

        Raises:
            ValueError: if a list does not have the length of its variables, or if marks were set or
                taken off since this `Pruner` was made.
        """
        self._check_marks()
        trainable = self._model.trainable_variables
        variables = [*self.variables, *trainable]
        values = [*pruner_variables, *trainable_variables]
        if len(pruner_variables) != len(self.variables) or len(values) != len(variables):
            raise ValueError(
                "`pruner_variables` and `trainable_variables` must have the values of "
                "`pruner.variables` and `model.trainable_variables`, in that order. Received: "
                f"{len(pruner_variables)} and {len(trainable_variables)} values for "
                f"{len(self.variables)} and {len(trainable)} variables"
            )
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
            self._apply()
        values = [scope.get_current_value(variable) for variable in variables]
        values = [v if new is None else new for v, new in zip(variables, values, strict=True)]
        count = len(self.variables)
        return values[count:], values[:count]

    def state_dict(self) -> dict[str, Any]:
        """Dict: string -> `numpy.ndarray` (on PyTorch `torch.Tensor`), to save in a checkpoint."""
        named = self._named_variables().items()
        return {name: backend.as_state(np.array(to_numpy(v))) for name, v in named}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned, for a model whose weights have been restored.

        Weights are found again if their paths differ in numbers that Keras chose, or in the names
        of layers around them.

        Args:
            state: Dict: string -> array.

        Raises:
            ValueError: if `state` belongs to a model with other paths or shapes of pruned weights.
        """
        variables = self._named_variables()
        state = self._with_frozen_weights(self._renamed(state))
        shapes = {name: tuple(v.shape) for name, v in variables.items()}
        received = {name: tuple(np.shape(value)) for name, value in state.items()}
        if shapes != received:
            different = sorted(set(shapes.items()) ^ set(received.items()))
            raise ValueError(
                "`state` must be what `state_dict` returned for a model of the same structure, "
                f"marked in the same way. Received: a state that differs in {different[:4]}"
            )
        for name, variable in variables.items():
            variable.assign(ops.convert_to_tensor(state[name], variable.dtype))

    def __repr__(self) -> str:
        step = int(to_numpy(self._step))
        weights = counted(len(self.pruned_weights), "{weights|weight}")
        return f"<Pruner of {weights}, at step {step}>"

    def _renamed(self, state):
        """Returns a state with the names that its weights have now (see `identity`)."""
        masks = {name: v for name, v in state.items() if name.startswith(_MASK)}
        saved, present = _identities(masks), _identities(self._named_masks())
        new = {
            _MASK + name: _MASK + present[place][0]
            for (name, _), place in zip(saved, match(saved, present), strict=True)
            if place is not None
        }
        return {new.get(name, name): value for name, value in state.items()}

    def _with_frozen_weights(self, state):
        """Adds what states lack that were written before frozen weights had masks."""
        named = list(self._named_masks())
        lacking = [
            name not in state and not weight.variable.trainable
            for name, weight in zip(named, self.pruned_weights, strict=True)
        ]
        if np.shape(state.get("pruned_steps")) != (lacking.count(False),):
            return state
        steps = np.full(len(named), NEVER, "int32")
        steps[np.logical_not(lacking)] = state["pruned_steps"]
        masks = zip(named, self.pruned_weights, lacking, strict=True)
        masks = {name: to_numpy(weight.mask) for name, weight, lacks in masks if lacks}
        return {**state, "pruned_steps": steps, **masks}

    def _named_variables(self):
        return {"step": self._step, "pruned_steps": self._pruned_steps, **self._named_masks()}

    def _named_masks(self):
        named = names([weight.variable for weight in self.pruned_weights])
        masks = (weight.mask for weight in self.pruned_weights)
        return dict(zip((_MASK + name for name in named), masks, strict=True))


def _identities(masks):
    """List of tuples (name, shape), in the order in which Keras numbered their layers."""
    identities = [(name.removeprefix(_MASK), tuple(np.shape(v))) for name, v in masks.items()]
    return sorted(identities, key=lambda identity: _numbered(identity[0]))


def _numbered(name):
    """A key that sorts `dense_2` before `dense_10`, whatever order a file returns them in."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _mask(variable, spec):
    """Creates the mask of a weight, with its layout."""
    return keras.Variable(
        mask_initializer(variable, spec),
        shape=tuple(variable.shape),
        dtype="bool",
        trainable=False,
        layout=getattr(variable, "_layout", None),
        name=f"{variable.path.replace('/', '_')}_mask",
    )
