"""The optimizer that prunes: the only place where training changes which weights are zero."""

import functools
import math

import keras
from keras import ops

from keras_trim import guard
from keras_trim.marks import get_spec, resolve_pending, set_spec
from keras_trim.pruned_weights import PrunedWeight, group_by_schedule
from keras_trim.selection import BACKEND
from keras_trim.specs import specs_from_config, specs_to_config

if BACKEND == "torch":
    import torch

    _TORCH_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

    def _outside_graph(function):
        """Eager and without gradients: what depends on the step's number is decided in Python."""
        return torch.compiler.disable(torch.no_grad()(function))

else:

    def _outside_graph(function):
        return function


@keras.saving.register_keras_serializable(package="keras_trim")
class PruningOptimizer(keras.optimizers.Optimizer):
    """Wraps an optimizer and prunes weights by magnitude as it trains.

    After each step of `inner_optimizer`, weight decay, constraints and moving averages included,
    the weights that are marked by `prune_low_magnitude` are multiplied by their masks; when a
    schedule says so, the masks are computed anew before. A step is one update of the weights, so
    with `gradient_accumulation_steps` several batches. Pruned weights keep getting gradients, so
    that one which grows within a step may come back at the next update of the mask (Zhu and Gupta,
    https://arxiv.org/abs/1710.01878, section 3).

    Masks are variables of the optimizer, one byte per weight: they are saved, restored, sharded and
    replicated as momenta are.

    Args:
        inner_optimizer: A `keras.optimizers.Optimizer`, or the name of one. (With
            `mixed_float16`, put `keras.optimizers.LossScaleOptimizer` around this optimizer, as
            `compile` does.)
        pruning: What to prune, as saved by `get_config`. Leave it out: the weights that are
            marked are pruned.
        name: String. Name of the optimizer.

    Example:

    ```python
    keras_trim.prune_low_magnitude(model, keras_trim.PolynomialDecay(0.0, 0.8, 0, 1000))
    optimizer = keras_trim.PruningOptimizer(keras.optimizers.Adam())
    optimizer.build(model.trainable_variables)
    # then, in your own training loop: optimizer.apply(gradients, model.trainable_variables)
    ```
    """

    def __init__(self, inner_optimizer, pruning=None, name=None):
        super().__init__(learning_rate=0.0, name=name)
        inner_optimizer = keras.optimizers.get(inner_optimizer)
        if isinstance(inner_optimizer, (PruningOptimizer, keras.optimizers.LossScaleOptimizer)):
            raise ValueError(
                "`inner_optimizer` must be the optimizer that moves the weights. Wrap it as "
                "`LossScaleOptimizer(PruningOptimizer(optimizer))`. "
                f"Received: inner_optimizer={type(inner_optimizer).__name__}"
            )
        self.inner_optimizer = inner_optimizer
        self.__dict__["_pruning_config"] = pruning
        self._set_pruned_weights([])

    def _set_pruned_weights(self, pruned_weights):
        # Past `__setattr__`, which would track the model's variables as the optimizer's own: JAX
        # would then be given them twice.
        self.__dict__["pruned_weights"] = pruned_weights
        self.__dict__["_groups"] = group_by_schedule(pruned_weights)

    # Building

    def build(self, variables):
        """Creates the masks.

        Args:
            variables: List of the trainable variables of a model.

        Raises:
            ValueError: if none of them is marked for pruning.
        """
        if self.built:
            return
        if not self.inner_optimizer.built:
            with keras.name_scope(self.inner_optimizer.name):
                self.inner_optimizer.build(variables)
        specs = self._specs(variables)
        if not specs:
            raise ValueError(
                "Nothing to prune: none of the variables is marked. Call "
                "`keras_trim.prune_low_magnitude(model, ...)` first; weights that are frozen "
                "(`trainable=False`) are not pruned. Received: "
                f"{len(variables)} trainable variables, {[v.path for v in variables][:4]}..."
            )
        pruned_weights = []
        for index, spec in specs.items():
            set_spec(variables[index], spec)
            mask = self._add_mask(variables[index])
            pruned_weights.append(PrunedWeight(index, variables[index], spec, mask))
        self._set_pruned_weights(pruned_weights)
        super().build(variables)

    def _specs(self, variables):
        """Dict: index among `variables` -> `PruningSpec`."""
        if self._pruning_config is not None:
            return specs_from_config(self._pruning_config, variables)
        resolve_pending()
        specs = {i: get_spec(variable) for i, variable in enumerate(variables)}
        return {i: spec for i, spec in specs.items() if spec is not None}

    def _add_mask(self, variable):
        def add():
            return self.add_variable(
                shape=variable.shape,
                initializer="ones",
                dtype="bool",
                layout=getattr(variable, "_layout", None),
                name=f"{variable.path.replace('/', '_')}_mask",
            )

        if BACKEND == "tensorflow":
            strategy = self._distribution_strategy
            with strategy.extended.colocate_vars_with(variable.value):
                return add()
        return add()

    # One step

    def apply(self, grads, trainable_variables=None):
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
        if not self.built:
            if trainable_variables is None:
                raise ValueError(
                    "The optimizer is not built: call `optimizer.build(trainable_variables)` "
                    "first, or pass `trainable_variables`. Received: trainable_variables=None"
                )
            with keras.name_scope(self.name):
                self.build(trainable_variables)
        before = self._current_step()
        with guard.pruning():
            self.inner_optimizer.apply(grads, trainable_variables)
        if BACKEND == "tensorflow":
            import tensorflow as tf

            tf.__internal__.distribute.interim.maybe_merge_call(
                lambda _: self._prune(before), self._distribution_strategy
            )
        else:
            self._prune(before)

    @_outside_graph
    def _current_step(self):
        """Optimizer steps finished: an integer where it can be known, else a tensor."""
        step = ops.copy(self.iterations)  # now: on TensorFlow a variable is read only when used
        return step if _is_traced(step) else int(step)

    @_outside_graph
    def _prune(self, before):
        step = self._current_step()
        for group in self._groups:
            if isinstance(step, int):
                counts = group.counts_on_host(before, step)
                if counts is not None:
                    self._update_masks(group.weights, counts)
                self._mask_weights(group.weights)
            else:
                self._prune_in_graph(group.weights, *group.counts_in_graph(before, step))

    def _prune_in_graph(self, weights, due, counts):
        """Masks the weights, with new masks if the scalar bool tensor `due` is true.

        The new masks are made in a loop that runs once or not at all. A conditional would do, but
        XLA has a loop work in place where it copies what goes through a conditional; and the
        masking outside the loop, which spares weights that are due, it fuses with the optimizer's
        own update, so that it costs no pass over the weights.
        """
        self._mask_weights(weights, unless=due)

        def update():
            self._update_masks(weights, counts)
            self._mask_weights(weights)

        if BACKEND == "tensorflow":
            import tensorflow as tf

            def body(i):
                update()
                return i + 1

            tf.while_loop(lambda i: i < tf.cast(due, "int32"), body, [0])
            return
        averages = self._moving_averages()
        variables = [variable for w in weights for variable in (w.variable, w.mask)]
        variables += [averages[w.index] for w in weights if averages.get(w.index) is not None]

        def body(i, values):
            state = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=state) as scope:
                update()
            return [scope.get_current_value(variable) for variable in variables]

        values = [ops.convert_to_tensor(variable) for variable in variables]
        values = ops.fori_loop(0, ops.cast(due, "int32"), body, values)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def _update_masks(self, weights, counts):
        for i, weight in enumerate(weights):
            pattern, count = weight.spec.pattern, counts[i]
            self._update(weight.mask, functools.partial(_mask, pattern, count), weight.variable)

    def _mask_weights(self, weights, unless=None):
        """Zeros what is pruned, in weights and in their averages.

        Args:
            weights: List of `PrunedWeight`.
            unless: Scalar bool tensor: if true, nothing is changed.
        """
        averages = self._moving_averages()
        for weight in weights:
            for variable in (weight.variable, averages.get(weight.index)):
                if variable is None:
                    continue
                if BACKEND == "torch":
                    # In place, and as integers: a product of floats turns NaN to NaN and -1 to -0.
                    value = variable.value
                    value.view(_TORCH_INTEGERS[value.element_size()]).mul_(weight.mask.value)
                else:
                    self._update(variable, functools.partial(_masked, unless), weight.mask)

    def _update(self, variable, function, other):
        """Assigns `function(value, other's value)`, on TensorFlow on every replica."""
        if BACKEND == "tensorflow":
            import tensorflow as tf

            self._distribution_strategy.extended.update(
                _native(variable),
                lambda variable, other: variable.assign(
                    function(tf.convert_to_tensor(variable), tf.convert_to_tensor(other))
                ),
                args=(_native(other),),
                group=False,
            )
        else:
            values = ops.convert_to_tensor(variable), ops.convert_to_tensor(other)
            variable.assign(function(*values))

    def _moving_averages(self):
        """Dict: index of a variable -> its moving average (`use_ema`), which is masked as well.

        So a pruned weight stays zero where an average overwrites it or is swapped in.
        """
        averages = {}
        for optimizer in getattr(self.inner_optimizer, "optimizers", [self.inner_optimizer]):
            if not (optimizer.built and optimizer.use_ema):
                continue
            for variable, average in zip(
                optimizer._trainable_variables,
                optimizer._model_variables_moving_average,
                strict=True,
            ):
                averages[self._get_variable_index(variable)] = average
        return averages

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)
        if self._moving_averages():  # which have just overwritten the weights
            _outside_graph(self._mask_weights)(self.pruned_weights)

    # What it looks like from outside

    def scheduled_sparsity(self, step):
        """Float: the fraction of all weights pruned here that is zero after `step` steps."""
        size = sum(math.prod(weight.variable.shape) for weight in self.pruned_weights)
        return sum(group.zeros_at(step) for group in self._groups) / size

    @property
    def schedules(self):
        """List of the different schedules of the pruned weights."""
        return [group.schedule for group in self._groups]

    @property
    def variables(self):
        return self._variables + self.inner_optimizer.variables

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def loss_scale_factor(self):
        inner_optimizer = self.__dict__.get("inner_optimizer")
        return None if inner_optimizer is None else inner_optimizer.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, value):
        # The constructor of Keras's `Optimizer` sets it before there is an inner optimizer; a
        # `LossScaleOptimizer` around this one sets it to `None`, so as not to scale twice.
        if "inner_optimizer" in self.__dict__:
            self.inner_optimizer.loss_scale_factor = value

    @property
    def _model_variables_moving_average(self):
        # `SwapEMAWeights` looks for it one level below a `LossScaleOptimizer`.
        return self.inner_optimizer._model_variables_moving_average

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def set_weights(self, weights):
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def get_config(self):
        pruning = self._pruning_config
        if self.built:
            pruning = specs_to_config(self.pruned_weights)
        return {
            "name": self.name,
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "pruning": pruning,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        inner_optimizer = keras.saving.deserialize_keras_object(
            config.pop("inner_optimizer"), custom_objects=custom_objects
        )
        return cls(inner_optimizer, **config)


def _native(variable):
    return variable.value if isinstance(variable, keras.Variable) else variable


def _is_traced(tensor):
    if BACKEND == "jax":
        import jax

        return isinstance(tensor, jax.core.Tracer)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return not tf.executing_eagerly()
    return False


def _mask(pattern, count, mask, values):
    """The new value of a mask, given the weight's values."""
    del mask
    return pattern.mask(values, count)


def _masked(unless, values, mask):
    """The new value of a weight, given its mask."""
    if unless is not None:
        mask = ops.logical_or(mask, unless)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        # Outside XLA `tf.where`, which broadcasts, takes twice as long as this.
        return tf.raw_ops.Select(condition=mask, x=values, y=tf.zeros_like(values))
    return ops.where(mask, values, ops.zeros((), values.dtype))
