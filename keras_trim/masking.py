"""The part of an optimizer's step that prunes: updates due masks and zeros pruned weights."""

import dataclasses
import functools

import keras
from keras import ops

from keras_trim import backend
from keras_trim.hosts import to_numpy
from keras_trim.schedule_groups import NEVER


def mask_initializer(variable, spec):
    """Returns what the mask of a weight starts from: ones, or its zeros if the schedule says so."""
    if getattr(spec.schedule, "starts_from_zeros", False):
        return functools.partial(_nonzero, variable)
    return backend.mask_initializer(getattr(variable, "_layout", None))


def _nonzero(variable, shape, dtype):
    """Returns `True` where a variable is not zero."""
    return ops.not_equal(variable, 0)


def _are_nonzero(mask, values):
    return ops.not_equal(values, 0)


@dataclasses.dataclass(frozen=True)
class Masking:
    """Updates masks and applies them to the weights that are not frozen.

    Args:
        groups: List of `ScheduleGroup`.
        pruned_steps: Integer variable of shape (weights,). For each weight, all mask updates up to
            this step are done (see `ScheduleGroup`).
        averages: Dict: `id` of a weight -> its moving average, a variable. It is masked like the
            weight, so a pruned weight stays zero when an average overwrites it or is swapped in.
        strategy: `tf.distribute.Strategy` of the variables, on TensorFlow.
    """

    groups: list
    pruned_steps: keras.Variable
    averages: dict
    strategy: object = None

    def prune(self, before, step):
        """Ends an optimizer step: updates the masks that are due and masks the weights.

        Args:
            before: The number of finished steps before this one: an integer, or a tensor inside a
                compiled step.
            step: The number of finished steps now, likewise. It equals `before` if this step only
                accumulated gradients.
        """
        if isinstance(step, int):
            if step != before:
                self.update_due_masks(step, before)
            self.mask_weights()
        else:
            self._prune_in_graph(before, step)

    @property
    def weights_with_zeros(self):
        """List of the `PrunedWeight`s of `KeepZeros`."""
        kept = [g for g in self.groups if getattr(g.schedule, "starts_from_zeros", False)]
        return [weight for group in kept for weight in group.weights]

    def start_from_zeros(self, step):
        """Makes the masks of `KeepZeros` from the weights, which may have been loaded since.

        Args:
            step: The number of finished steps: an integer, or a tensor inside a compiled step.
                Nothing happens unless it is 0.
        """
        weights = self.weights_with_zeros

        def start():
            for weight in weights:
                backend.update(weight.mask, _are_nonzero, weight.variable, self.strategy)

        if not isinstance(step, int):
            masks, kernels = [w.mask for w in weights], [w.variable for w in weights]
            backend.run_if(ops.equal(step, 0), start, masks, kernels)
        elif step == 0:
            start()

    def update_due_masks(self, step, before=None):
        """Runs the mask updates that are due at `step`, an integer, and not done yet.

        `before` is the optimizer's step when its previous step ended. Masks that claim to be ahead
        of it were made before the step counter was set back.
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
            advanced = ops.convert_to_tensor(advanced, "int32")
            backend.update(self.pruned_steps, lambda _, new: new, advanced, self.strategy)

    def _prune_in_graph(self, before, step):
        done = ops.cast(ops.convert_to_tensor(self.pruned_steps), step.dtype)
        reset = ops.where(ops.equal(before, 0), ops.full_like(before, NEVER), before)
        done = ops.where(done > before, reset, done)
        latest = []
        for group in self.groups:
            # Frozen weights wait: a schedule would look back for their updates at every step.
            slots = [weight.slot for weight in group.weights if weight.variable.trainable]
            after = ops.min(ops.take(done, slots)) if slots else step
            latest.append(group.latest_update_in_graph(step, after))
        # From here on there is one value per weight, in the order of slots.
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
        if not backend.loop_per_weight():
            self.mask_weights()
        is_evaluated = ops.logical_and(
            is_active, [not self.groups[g].is_stepped for g, _ in weights]
        )
        done = ops.where(ops.logical_or(due, is_evaluated), step, done)
        done = ops.cast(done, self.pruned_steps.dtype)
        variables = [weight.variable for _, weight in weights]
        backend.assign_last(self.pruned_steps, done, after=variables, strategy=self.strategy)

    def _update_group(self, group, active, latest, due):
        """Updates the masks of a group, in one loop for all or one loop each.

        Args:
            active: List of integers: indices within the group of the weights that are not frozen.
            latest: Scalar integer tensor: the step of the update.
            due: Bool tensor of shape (weights of the optimizer,): which masks are due.
        """
        weights = [group.weights[i] for i in active]
        due = ops.take(due, [weight.slot for weight in weights])

        def counts():
            return ops.take(group.counts_in_graph(latest), active)

        if backend.loop_per_weight():
            self._prune_each(due, weights, counts())
            return
        masks = [weight.mask for weight in weights]
        kernels = [weight.variable for weight in weights]
        backend.run_if(
            ops.any(due), lambda: self._update_masks(weights, counts(), due), masks, kernels
        )

    def _prune_each(self, due, weights, counts):
        """Masks the weights, with new masks where the bool tensor `due` is true.

        Everything that depends on `due` happens in loops that run once or not at all. The masking
        outside these loops skips the weights that are due, so it fuses with the optimizer's own
        update.
        """
        counts, _ = backend.opaque(counts, due)
        for i, weight in enumerate(weights):
            self._mask(weight, unless=due[i])
        for i, weight in enumerate(weights):
            # One loop per weight: in a shared loop, XLA copies weights before it changes them.
            changed = [weight.mask, *self._masked_variables(weight)]

            def prune(weight=weight, counts=counts[i : i + 1]):
                self._update_masks([weight], counts)
                self._mask(weight)

            backend.run_if(due[i], prune, changed)

    def mask_weights(self):
        """Zeros pruned weights and their moving averages."""
        for group in self.groups:
            for weight in group.weights:
                if weight.variable.trainable:
                    self._mask(weight)

    def _update_masks(self, weights, counts, due=None):
        for i, weight in enumerate(weights):
            is_due = None if due is None else due[i]
            function = functools.partial(_mask, weight.spec.pattern, counts[i], is_due)
            backend.update(weight.mask, function, weight.variable, self.strategy)

    def _mask(self, weight, unless=None):
        for variable in self._masked_variables(weight):
            backend.zero(variable, weight.mask, unless, self.strategy)

    def _masked_variables(self, weight):
        average = self.averages.get(id(weight.variable))
        return [weight.variable] if average is None else [weight.variable, average]


def _mask(pattern, count, due, mask, values):
    """Returns the new value of a mask for a weight's values; the old one if `due` is false."""
    new = pattern.mask(values, count)
    return new if due is None else ops.where(due, new, mask)
