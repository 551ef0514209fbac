"""What pruning adds to an optimizer's step: new masks if they are due, zeros where they say so."""

import dataclasses
import functools

import keras
from keras import ops

from keras_trim.hosts import to_numpy
from keras_trim.pruned_weights import NEVER
from keras_trim.selection import BACKEND

if BACKEND == "torch":
    import torch

    _TORCH_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

    def outside_graph(function):
        """Eager and without gradients: what depends on the step's number is decided in Python."""
        return torch.compiler.disable(torch.no_grad()(function))

else:

    def outside_graph(function):
        return function


@outside_graph
def read_step(iterations):
    """Optimizer steps finished: an integer where it can be known, else a tensor."""
    if BACKEND == "torch":
        return int(ops.convert_to_tensor(iterations))  # always known, and no copy needed
    step = ops.copy(iterations)  # now: on TensorFlow a variable is read only when used
    return step if _is_traced(step) else int(step)


def _is_traced(tensor):
    if BACKEND == "jax":
        import jax

        return isinstance(tensor, jax.core.Tracer)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return not tf.executing_eagerly()
    return False


@dataclasses.dataclass(frozen=True)
class Masking:
    """Makes masks and applies them to the weights that are not frozen.

    Args:
        groups: List of `ScheduleGroup`.
        pruned_steps: Integer variable of shape (weights,): for each weight the step up to which all
            updates of its mask are done (see `ScheduleGroup`).
        averages: Dict: `PrunedWeight.index` -> moving average of that weight, a variable which is
            masked as the weight is. So a pruned weight stays zero where an average overwrites it
            or is swapped in.
        strategy: `tf.distribute.Strategy` of the variables, on TensorFlow.
    """

    groups: list
    pruned_steps: keras.Variable
    averages: dict
    strategy: object = None

    def prune(self, before, step):
        """Ends a step of the optimizer: updates the masks that are due, and masks the weights.

        Args:
            before: Steps finished before this one: an integer, or within a compiled step a tensor.
            step: Steps finished now, likewise; the same where gradients only accumulated.
        """
        if isinstance(step, int):
            if step != before:
                self.update_due_masks(step, before)
            self.mask_weights()
        else:
            self._prune_in_graph(before, step)

    def update_due_masks(self, step, before=None):
        """Does the updates that are due at `step`, an integer, and have not been done.

        `before` are the steps that the optimizer had finished when it last ended a step: masks that
        claim to be ahead of it were made before the count of steps was set back.
        """
        done = to_numpy(self.pruned_steps).tolist()
        advanced = list(done)
        if before is not None:
            advanced = [(before or NEVER) if each > before else each for each in done]
        for group in self.groups:
            active = [(i, w) for i, w in enumerate(group.weights) if w.variable.trainable]
            if not active:
                continue
            latest = group.latest_update(step, min(advanced[w.slot] for _, w in active))
            due = [(i, weight) for i, weight in active if latest > advanced[weight.slot]]
            if due:
                counts = group.counts(latest)
                self._update_masks([w for _, w in due], [counts[i] for i, _ in due])
            for _, weight in due if group.is_stepped else active:
                advanced[weight.slot] = step
        if advanced != done:
            self._assign(self.pruned_steps, ops.convert_to_tensor(advanced, "int32"))

    def _prune_in_graph(self, before, step):
        done = ops.cast(ops.convert_to_tensor(self.pruned_steps), step.dtype)
        reset = ops.where(ops.equal(before, 0), ops.full_like(before, NEVER), before)
        done = ops.where(done > before, reset, done)
        latest = [
            group.latest_update_in_graph(step, ops.min(ops.take(done, group.slots)))
            for group in self.groups
        ]
        # From here on a value per weight, in the order of slots.
        weights = {w.slot: (g, w) for g, group in enumerate(self.groups) for w in group.weights}
        weights = [weights[slot] for slot in range(len(weights))]
        is_active = ops.logical_and(
            [weight.variable.trainable for _, weight in weights], ops.not_equal(step, before)
        )
        is_later = ops.take(ops.stack(latest), [g for g, _ in weights]) > done
        due = ops.logical_and(is_active, is_later)
        for group, group_latest in zip(self.groups, latest, strict=True):
            active = [i for i, w in enumerate(group.weights) if w.variable.trainable]
            if active:
                self._update_group(group, active, group_latest, due)
        is_evaluated = ops.logical_and(
            is_active, [not self.groups[g].is_stepped for g, _ in weights]
        )
        done = ops.where(ops.logical_or(due, is_evaluated), step, done)
        done = ops.cast(done, self.pruned_steps.dtype)
        if BACKEND == "tensorflow":
            self.mask_weights()
            self._assign_after_weights(self.pruned_steps, done)
        else:
            self._assign(self.pruned_steps, done)

    def _update_group(self, group, active, latest, due):
        """Updates the masks of a group, and on JAX masks its weights.

        Args:
            active: List of integers, the places in the group of the weights that are not frozen.
            latest: Scalar integer tensor, the step of the update.
            due: Bool tensor of shape (weights of the optimizer,): whose masks are due.
        """
        weights = [group.weights[i] for i in active]
        due = ops.take(due, [weight.slot for weight in weights])

        def counts():
            return ops.take(group.counts_in_graph(latest), active)

        if BACKEND == "tensorflow":
            self._update_masks_if(due, weights, counts)
        else:
            self._prune_if(due, weights, counts())

    def mask_weights(self):
        """Zeros what is pruned, in weights and in their averages."""
        for group in self.groups:
            self._mask([weight for weight in group.weights if weight.variable.trainable])

    def _update_masks_if(self, due, weights, counts):
        """New masks where the bool tensor `due`, of shape (weights,), is true, on TensorFlow."""
        import tensorflow as tf

        def body(i):
            self._update_masks(weights, counts(), due)
            return i + 1

        tf.while_loop(lambda i: i < tf.cast(tf.reduce_any(due), "int32"), body, [0])

    def _prune_if(self, due, weights, counts):
        """Masks the weights, with new masks where the bool tensor `due` is true, for XLA.

        What depends on `due` is done in loops that run once or not at all. A conditional would do,
        but XLA has a loop work in place where it copies what goes through a conditional; and the
        masking outside the loops, which spares weights that are due, it fuses with the optimizer's
        own update, so that it costs no pass over the weights.

        A GPU is idle at each loop until the host has read whether it runs. So there is one only,
        of the masks: weights it would copy, and their masking behind it takes next to no time.
        """
        from jax import lax

        # As if it were unknown: programs that differ only in constants XLA compiles one by one.
        counts, _ = lax.optimization_barrier((counts, due))
        if _platform() == "gpu":
            masks = [weight.mask for weight in weights]
            kernels = [weight.variable for weight in weights]
            update = functools.partial(self._update_masks, weights, counts, due)
            _run_if(ops.any(due), update, masks, kernels)
            self._mask(weights)
            return
        self._mask(weights, unless=due)
        for i, weight in enumerate(weights):
            # A loop for each: within one, XLA copies weights before it changes them.
            changed = [weight.mask, *self._masked_variables(weight)]

            def prune(weights=(weight,), counts=counts[i : i + 1]):
                self._update_masks(weights, counts)
                self._mask(weights)

            _run_if(due[i], prune, changed)

    def _update_masks(self, weights, counts, due=None):
        for i, weight in enumerate(weights):
            is_due = None if due is None else due[i]
            function = functools.partial(_mask, weight.spec.pattern, counts[i], is_due)
            self._update(weight.mask, function, weight.variable)

    def _mask(self, weights, unless=None):
        for i, weight in enumerate(weights):
            spared = None if unless is None else unless[i]
            for variable in self._masked_variables(weight):
                if BACKEND == "torch":
                    # In place, and as integers: a product of floats turns NaN to NaN and -1 to -0.
                    value = variable.value
                    bits = value.view(_TORCH_INTEGERS[value.element_size()])
                    bits.mul_(weight.mask.value.view(torch.int8))  # bools take a third longer
                else:
                    self._update(variable, functools.partial(_masked, spared), weight.mask)

    def _masked_variables(self, weight):
        average = self.averages.get(weight.index)
        return [weight.variable] if average is None else [weight.variable, average]

    def _assign(self, variable, value):
        self._update(variable, lambda _, new: new, value)

    def _assign_after_weights(self, variable, value):
        """Assigns in TensorFlow's graph once all weights are masked.

        Where data of unknown length end, the step is cancelled while it runs, and what does not
        depend on the data may have been done by then: the count of steps, for one.
        """
        import tensorflow as tf

        weights = [weight for group in self.groups for weight in group.weights]
        reads = [tf.convert_to_tensor(_native(weight.variable)) for weight in weights]
        with tf.control_dependencies(reads):
            self._assign(variable, tf.identity(value))

    def _update(self, variable, function, other):
        """Assigns `function(value, other's value)`, on TensorFlow on every replica."""
        if BACKEND == "tensorflow":
            import tensorflow as tf

            self.strategy.extended.update(
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


def _platform():
    import jax

    return jax.default_backend()


def _run_if(due, function, changed, read=()):
    """Runs a function once or not at all; which variables it changes or reads is known to XLA."""
    constants = [(variable, ops.convert_to_tensor(variable)) for variable in read]

    def body(i, values):
        state = [*zip(changed, values, strict=True), *constants]
        with keras.StatelessScope(state_mapping=state) as scope:
            function()
        return [scope.get_current_value(variable) for variable in changed]

    values = [ops.convert_to_tensor(variable) for variable in changed]
    values = ops.fori_loop(0, ops.cast(due, "int32"), body, values)
    for variable, value in zip(changed, values, strict=True):
        variable.assign(value)


def _native(variable):
    return variable.value if isinstance(variable, keras.Variable) else variable


def _mask(pattern, count, due, mask, values):
    """The new value of a mask, given the weight's values; its own unless the tensor `due`."""
    new = pattern.mask(values, count)
    return new if due is None else ops.where(due, new, mask)


def _masked(unless, values, mask):
    """The new value of a weight, given its mask; its own value if `unless` is a true tensor."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        # Zero for False whatever the value; `tf.where` takes twice as long outside XLA.
        return tf.math.multiply_no_nan(values, tf.cast(mask, values.dtype))
    if unless is not None:
        mask = ops.logical_or(mask, unless)
    return ops.where(mask, values, ops.zeros((), values.dtype))
