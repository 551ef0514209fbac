"""What pruning adds to an optimizer's step: new masks if they are due, zeros where they say so."""

import dataclasses
import functools

import keras
from keras import ops

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
    """Makes masks and applies them to weights.

    Args:
        groups: List of `ScheduleGroup`.
        averages: Dict: `PrunedWeight.index` -> moving average of that weight, a variable which is
            masked as the weight is. So a pruned weight stays zero where an average overwrites it
            or is swapped in.
        strategy: `tf.distribute.Strategy` of the variables, on TensorFlow.
    """

    groups: list
    averages: dict
    strategy: object = None

    def prune(self, before, step):
        """Ends a step of the optimizer.

        Args:
            before: Steps finished before this one: an integer, or within a compiled step a tensor.
            step: Steps finished now, likewise.
        """
        if isinstance(step, int):
            for group in self.groups:
                counts = group.counts_on_host(before, step)
                if counts is not None:
                    self._update_masks(group.weights, counts)
            self.mask_weights()
            return
        for group in self.groups:
            due, counts = group.counts_in_graph(before, step)
            if BACKEND == "tensorflow":
                self._update_masks_if(due, group.weights, counts)
            else:
                self._prune_if(due, group.weights, counts())
        if BACKEND == "tensorflow":
            self.mask_weights()

    def mask_weights(self):
        """Zeros what is pruned, in weights and in their averages."""
        for group in self.groups:
            self._mask(group.weights)

    def _update_masks_if(self, due, weights, counts):
        """New masks if the scalar bool tensor `due` is true, in TensorFlow's graph."""
        import tensorflow as tf

        def body(i):
            self._update_masks(weights, counts())
            return i + 1

        tf.while_loop(lambda i: i < tf.cast(due, "int32"), body, [0])

    def _prune_if(self, due, weights, counts):
        """Masks the weights, with new masks if the scalar bool tensor `due` is true, for XLA.

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
            _run_if(due, lambda: self._update_masks(weights, counts), masks, kernels)
            self._mask(weights)
            return
        self._mask(weights, unless=due)
        for i, weight in enumerate(weights):
            # A loop for each: within one, XLA copies weights before it changes them.
            changed = [weight.mask, *self._masked_variables(weight)]

            def prune(weights=(weight,), counts=counts[i : i + 1]):
                self._update_masks(weights, counts)
                self._mask(weights)

            _run_if(due, prune, changed)

    def _update_masks(self, weights, counts):
        for i, weight in enumerate(weights):
            pattern, count = weight.spec.pattern, counts[i]
            self._update(weight.mask, functools.partial(_mask, pattern, count), weight.variable)

    def _mask(self, weights, unless=None):
        for weight in weights:
            for variable in self._masked_variables(weight):
                if BACKEND == "torch":
                    # In place, and as integers: a product of floats turns NaN to NaN and -1 to -0.
                    value = variable.value
                    bits = value.view(_TORCH_INTEGERS[value.element_size()])
                    bits.mul_(weight.mask.value.view(torch.int8))  # bools take a third longer
                else:
                    self._update(variable, functools.partial(_masked, unless), weight.mask)

    def _masked_variables(self, weight):
        average = self.averages.get(weight.index)
        return [weight.variable] if average is None else [weight.variable, average]

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


def _mask(pattern, count, mask, values):
    """The new value of a mask, given the weight's values."""
    del mask
    return pattern.mask(values, count)


def _masked(unless, values, mask):
    """The new value of a weight, given its mask; its own value if `unless` is a true tensor."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        # Zero for False whatever the value; `tf.where` takes twice as long outside XLA.
        return tf.math.multiply_no_nan(values, tf.cast(mask, values.dtype))
    if unless is not None:
        mask = ops.logical_or(mask, unless)
    return ops.where(mask, values, ops.zeros((), values.dtype))
