"""The pruning optimizer: the only place where training changes which weights are zero."""

import collections
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_trim import backend, guard
from keras_trim.annotations import changes, check_marks, get_spec, resolve_pending, set_spec
from keras_trim.arguments import counted, described
from keras_trim.diagnostics import warn_of_state
from keras_trim.hosts import to_numpy
from keras_trim.masking import Masking, mask_initializer
from keras_trim.optimizer_state import load_state, save_state
from keras_trim.schedule_groups import NEVER, PrunedWeight, group_by_schedule
from keras_trim.schedules import PruningSchedule
from keras_trim.specs import specs_from_config, specs_to_config
from keras_trim.wrapper_optimizer import WrapperOptimizer


@keras.saving.register_keras_serializable(package="keras_trim")
class PruningOptimizer(WrapperOptimizer):
    """Wraps an optimizer and prunes weights by magnitude as it trains.

    After each step of `inner_optimizer`, including its weight decay, constraints and moving
    averages, this multiplies the weights marked by `prune_low_magnitude` by their masks. When a
    schedule says so, it computes new masks first. A step is one update of the weights, so with
    `gradient_accumulation_steps` it spans several batches. Pruned weights keep receiving gradients.
    A weight that grows within a step may therefore come back at the next mask update (Zhu and
    Gupta, https://arxiv.org/abs/1710.01878, section 3).

    Masks are variables of the optimizer, with one byte per weight in memory and one bit in Keras's
    files. They are saved, restored, sharded and replicated like momenta. Frozen weights
    (`trainable=False`) are left alone until they are trained again.

    Args:
        inner_optimizer: A `keras.optimizers.Optimizer` or the name of one. (With `mixed_float16`,
            put `keras.optimizers.LossScaleOptimizer` around this optimizer, as `compile` does.)
        pruning: What to prune, as saved by `get_config`. Leave it out to prune the marked weights.
        name: String. Name of the optimizer.

    Raises:
        ValueError: if `inner_optimizer` is not a Keras optimizer, or itself wraps one.

    Example:

    ```python
    keras_trim.prune_low_magnitude(model, keras_trim.PolynomialDecay(0.0, 0.8, 0, 1000))
    optimizer = keras_trim.PruningOptimizer(keras.optimizers.Adam())
    optimizer.build(model.trainable_variables)
    # then, in your own training loop: optimizer.apply(gradients, model.trainable_variables)
    ```
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer | str,
        pruning: dict[str, Any] | None = None,
        name: str = "pruning_optimizer",
    ) -> None:
        super().__init__(learning_rate=0.0, name=name)
        if not isinstance(inner_optimizer, (str, dict, keras.optimizers.Optimizer)):
            raise ValueError(
                "`inner_optimizer` must be a Keras optimizer, or the name of one: "
                "`PruningOptimizer(keras.optimizers.Adam())`, or 'adam'. "
                f"Received: inner_optimizer={described(inner_optimizer)}"
            )
        inner_optimizer = keras.optimizers.get(inner_optimizer)
        if isinstance(inner_optimizer, (PruningOptimizer, keras.optimizers.LossScaleOptimizer)):
            raise ValueError(
                "`inner_optimizer` must be the optimizer that moves the weights. Wrap it as "
                "`LossScaleOptimizer(PruningOptimizer(optimizer))`. "
                f"Received: inner_optimizer={type(inner_optimizer).__name__}"
            )
        self.inner_optimizer = inner_optimizer
        self.__dict__["_pruning_config"] = pruning
        self._set_pruned_weights([], None)

    def _set_pruned_weights(self, pruned_weights, pruned_steps):
        # Bypass `__setattr__`, which would track the model's variables as the optimizer's own. JAX
        # would then receive them twice.
        self.__dict__["pruned_weights"] = pruned_weights
        self.__dict__["pruned_steps"] = pruned_steps
        self.__dict__["_groups"] = group_by_schedule(pruned_weights)
        self.__dict__["_size"] = sum(math.prod(weight.variable.shape) for weight in pruned_weights)
        self.__dict__["_checked_step"] = None
        self.__dict__["_pruned_steps_read"] = [NEVER] * len(pruned_weights)

    # Building

    def __repr__(self) -> str:
        inner = type(self.inner_optimizer).__name__
        if not self.built:
            return f"<PruningOptimizer around {inner}, not built>"
        step = int(to_numpy(self.iterations))
        weights = counted(len(self.pruned_weights), "{weights|weight}")
        return f"<PruningOptimizer around {inner}, {weights}, at step {step}>"

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the masks.

        Args:
            variables: List of the trainable variables of a model.

        Raises:
            ValueError: if none of them is marked for pruning.
        """
        if self.built:
            return
        inner = self.inner_optimizer
        if not inner.built:
            # Use the same paths for every caller: `fit`, `apply`, `load_model`, other optimizers.
            with keras.name_scope(inner.name, caller=inner, override_parent=""):
                inner.build(variables)
        guard.install()  # for a loaded model, this is the only place that marks it
        specs = self._specs(variables)
        if not specs and self._pruning_config is None:
            raise ValueError(
                "Nothing to prune: none of the trainable variables is marked. Call "
                "`keras_trim.prune_low_magnitude(model, ...)` first, for layers that have kernels "
                "and are not frozen (`trainable=False`). Received: "
                f"{len(variables)} trainable variables, {[v.path for v in variables][:4]}..."
            )
        with keras.name_scope(self.name, caller=self, override_parent=""):
            self._add_pruned_weights(variables, specs)
        super().build(variables)

    def _add_pruned_weights(self, variables, specs):
        pruned_weights, names = [], collections.Counter()
        for slot, (index, spec) in enumerate(specs.items()):
            set_spec(variables[index], spec)
            name = f"{variables[index].path.replace('/', '_')}_mask"
            names[name] += 1
            unique = name if names[name] == 1 else f"{name}_{names[name] - 1}"
            mask = self._add_mask(variables[index], unique, spec)
            pruned_weights.append(PrunedWeight(index, slot, variables[index], spec, mask))
        pruned_steps = None
        if pruned_weights:
            pruned_steps = self.add_variable(
                shape=(len(pruned_weights),),
                initializer=keras.initializers.Constant(NEVER),
                dtype="int32",
                aggregation="only_first_replica",
                name="pruned_steps",
            )
        self._set_pruned_weights(pruned_weights, pruned_steps)

    def _specs(self, variables):
        """Dict: index in `variables` -> `PruningSpec`."""
        if self._pruning_config is not None:
            return specs_from_config(self._pruning_config, variables)
        resolve_pending()
        specs = {i: get_spec(variable) for i, variable in enumerate(variables)}
        return {i: spec for i, spec in specs.items() if spec is not None}

    def _add_mask(self, variable, name, spec):
        with backend.placed_like(variable, backend.strategy_of(self)):
            return self.add_variable(
                shape=variable.shape,
                # An assignment would become part of the first step TensorFlow traces.
                initializer=mask_initializer(variable, spec),
                dtype="bool",
                layout=getattr(variable, "_layout", None),
                name=name,
            )

    # One step

    def apply(
        self, grads: Sequence[Any], trainable_variables: Iterable[keras.Variable] | None = None
    ) -> None:
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
        if not self.built:
            if trainable_variables is None:
                raise ValueError(
                    "The optimizer is not built: call `optimizer.build(trainable_variables)` "
                    "first, or pass `trainable_variables`. Received: trainable_variables=None"
                )
            self.build(trainable_variables)
        elif trainable_variables is None and len(grads) == len(self._trainable_variables):
            # Not those of the inner optimizer, which may have more, or have them in another order.
            trainable_variables = self._trainable_variables
        self._check_marks(trainable_variables or ())
        before = backend.read_step(self.iterations)
        strategy, masking = backend.strategy_of(self), self._masking()
        if masking.weights_with_zeros:
            backend.on_all_replicas(lambda: masking.start_from_zeros(before), strategy)
        if isinstance(before, int) and before > 0 and backend.CATCHES_UP_EARLY:
            masking.update_due_masks(before)  # updates of skipped steps
        with guard.pruning():
            self.inner_optimizer.apply(grads, trainable_variables)
        backend.on_all_replicas(lambda: self._prune(before), strategy)

    def _check_marks(self, variables):
        if self.__dict__.get("_changes") != changes():  # marks of any model: few programs set them
            marked = [v for v in variables if v.trainable and get_spec(v) is not None]
            cure = "call `model.compile()` again, or make a new `keras_trim.PruningOptimizer`"
            check_marks(self.pruned_weights, marked, cure)
            self.__dict__["_changes"] = changes()

    @backend.outside_graph
    def _prune(self, before):
        if self.pruned_weights:
            self._masking().prune(before, backend.read_step(self.iterations))

    def update_due_masks(self) -> None:
        """Runs all updates that the schedule has asked for so far and the masks do not show yet.

        This is needed if weights and the step counter were restored but masks were not: the masks
        are then made from the zeros in the weights. Warns if weights and masks do not match. `fit`
        calls this before it starts.
        """
        if not self.built or not self.pruned_weights:
            return
        step, masking = backend.read_step(self.iterations), self._masking()
        if step == 0:
            with backend.strategy_scope(self):
                backend.outside_graph(masking.start_from_zeros)(step)
        if self.__dict__["_checked_step"] != step:  # `fit` and the callback both call this
            self.__dict__["_checked_step"] = step
            warn_of_state(self)
        if step > 0:
            with backend.strategy_scope(self):
                backend.outside_graph(masking.update_due_masks)(step)
                backend.outside_graph(masking.mask_weights)()

    def _masking(self):
        # Create it anew each time: an inner optimizer may be built, with averages, after this one.
        averages = self._moving_averages()
        return Masking(self._groups, self.pruned_steps, averages, backend.strategy_of(self))

    def _moving_averages(self):
        """Dict: `id` of a variable -> its moving average (with `use_ema`)."""
        averages = {}
        for optimizer in getattr(self.inner_optimizer, "optimizers", [self.inner_optimizer]):
            if not (optimizer.built and optimizer.use_ema):
                continue
            for variable, average in zip(
                optimizer._trainable_variables,
                optimizer._model_variables_moving_average,
                strict=True,
            ):
                if average is not None:
                    averages[id(variable)] = average
        return averages

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        self.__dict__["_checked_step"] = None  # `fit` ends: weights may be replaced before the next
        self.inner_optimizer.finalize_variable_values(var_list)
        if self._moving_averages():  # they have just overwritten the weights
            backend.outside_graph(self._masking().mask_weights)()

    # Interface to the rest of Keras and keras-trim

    def read_masks(self, step: int) -> None:
        """Starts `scheduled_sparsity` from the contents of the masks after `step` steps."""
        if self.pruned_steps is not None:
            self.__dict__["_pruned_steps_read"] = to_numpy(self.pruned_steps).tolist()
        for group in self._groups:
            group.read_masks(step)

    def scheduled_sparsity(self, step: int) -> float:
        """Float: the fraction of zeros among all weights pruned here, after `step` steps.

        The schedules determine it, starting from the last call of `read_masks`.
        """
        done = self._pruned_steps_read
        zeros = sum(group.zeros_at(step, done) for group in self._groups)
        return zeros / self._size if self._size else 0.0

    @property
    def schedules(self) -> list[PruningSchedule]:
        """List of the distinct schedules of the pruned weights."""
        return [group.schedule for group in self._groups]

    def save_own_variables(self, store: Any) -> None:
        save_state(self, store)

    def load_own_variables(self, store: Any) -> None:
        if not self.built:
            warnings.warn(
                f"Skipping variable loading for optimizer '{self.name}', which has not been built "
                "yet: masks and momenta start afresh. Build the model, or call "
                "`optimizer.build(model.trainable_variables)`, before you load.",
                stacklevel=2,
            )
            return
        load_state(self, store)

    def get_config(self) -> dict[str, Any]:
        pruning = self._pruning_config
        if self.built:
            specs = [(weight.variable, weight.spec) for weight in self.pruned_weights]
            pruning = specs_to_config(specs, self._trainable_variables)
        return {
            "name": self.name,
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "pruning": pruning,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "PruningOptimizer":
        config = dict(config)
        inner_optimizer = keras.saving.deserialize_keras_object(
            config.pop("inner_optimizer"), custom_objects=custom_objects
        )
        return cls(inner_optimizer, **config)
