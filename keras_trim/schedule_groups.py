"""The weights that an optimizer prunes, and how many units of each to prune at which step."""

import bisect
import dataclasses
import numbers
import operator
import threading

import keras
import numpy as np
from keras import ops

from keras_trim.counting import count_zeros
from keras_trim.schedules import is_known_ahead, validate_sparsity
from keras_trim.specs import PruningSpec

# With more entries than this, the table of counts takes too much memory in the compiled step.
MAX_TABLE_ENTRIES = 2**22

NEVER = -1  # stands for the step of an update that has not happened

_RETURNED = "sparsity of the schedule"


@dataclasses.dataclass(frozen=True, eq=False)
class PrunedWeight:
    """A weight that an optimizer prunes, and its mask.

    Args:
        index: Integer. Its index among the variables that the optimizer was built with.
        slot: Integer. Its index among the weights that the optimizer prunes.
        variable: The Keras variable.
        spec: `PruningSpec`.
        mask: Bool Keras variable of the same shape, `True` where the weight is kept.
    """

    index: int
    slot: int
    variable: keras.Variable
    spec: PruningSpec
    mask: keras.Variable


class ScheduleGroup:
    """The weights that follow one schedule, and how many units of each to prune at each step.

    `pruned_steps` below holds one integer per weight of the optimizer: all updates up to that step
    are done, and `NEVER` means none is. An update is due if the schedule has one after that step,
    so a skipped update happens at the next step.
    """

    def __init__(self, schedule, weights):
        self.schedule = schedule
        self.weights = weights
        self.is_stepped = is_known_ahead(schedule)
        self._counts_at = {}
        self._lock = threading.Lock()
        self._watched = None  # the last step evaluated, for schedules that are not known ahead
        self._changes = []  # for those: (step, zeros in all the weights from that step on)
        self._table = None
        if self.is_stepped and schedule.num_updates * len(weights) <= MAX_TABLE_ENTRIES:
            steps = (schedule.update_step(i) for i in range(schedule.num_updates))
            self._table = np.array([self.counts(step) for step in steps], "int32")

    @property
    def slots(self):
        return [weight.slot for weight in self.weights]

    # Steps as integers

    def latest_update(self, step, after=NEVER):
        """Integer: the step of the last update in `(after, step]`, or `NEVER`."""
        if self.is_stepped:
            latest = self.schedule.latest_update(step)
            return latest if latest > after else NEVER
        for earlier in range(step, after, -1):
            if bool(self.schedule(ops.convert_to_tensor(earlier, "int32"))[0]):
                return earlier
        return NEVER

    def counts(self, step):
        """List of integers: the units to prune of each weight in the update at `step`."""
        if not self.is_stepped:
            _, sparsity = self.schedule(ops.convert_to_tensor(step, "int32"))
            validate_sparsity(float(sparsity), _RETURNED)
            return [int(weight.spec.count_pruned(sparsity)) for weight in self.weights]
        step = self.schedule.update_step(self.schedule.update_index(step))
        if step not in self._counts_at:
            sparsity = self.schedule.sparsity_at(step)
            self._counts_at[step] = [w.spec.count_pruned(sparsity) for w in self.weights]
        return self._counts_at[step]

    # Steps as tensors

    def latest_update_in_graph(self, step, after):
        """Does what `latest_update` does, for scalar integer tensors."""
        if self.is_stepped:
            latest = self.schedule.latest_update(step)
            return ops.where(latest > after, latest, NEVER)

        def is_open(now, latest):
            return ops.logical_and(now > after, ops.equal(latest, NEVER))

        def look_back(now, latest):
            due, _ = self.schedule(now)
            return now - 1, ops.where(due, now, latest)

        _, latest = ops.while_loop(is_open, look_back, [step, ops.full_like(step, NEVER)])
        return latest

    def counts_in_graph(self, step):
        """Int32 tensor of shape (weights,): the units to prune in the update at `step`."""
        step = ops.maximum(step, 0)
        if self._table is not None:
            return ops.take(ops.convert_to_tensor(self._table), self.schedule.update_index(step), 0)
        _, sparsity = self.schedule(step)
        if isinstance(sparsity, numbers.Real):
            validate_sparsity(sparsity, _RETURNED)
        counts = [weight.spec.count_pruned(sparsity) for weight in self.weights]
        counts = ops.stack([ops.cast(count, "int32") for count in counts])
        if not self.is_stepped:
            return counts
        # The sparsity is a float32 here, so a count may be off by one. The last one must not be.
        last = self.schedule.num_updates - 1
        final = ops.convert_to_tensor(self.counts(self.schedule.update_step(last)), "int32")
        return ops.where(self.schedule.update_index(step) == last, final, counts)

    # The contents of masks

    def zeros_at(self, step, pruned_steps):
        """Integer: the number of zeros in the masks after `step` steps.

        Args:
            step: Integer. The number of finished steps.
            pruned_steps: List of integers: the value of that variable at some earlier step.
        """
        if not self.is_stepped:
            return self._watch(step)
        zeros = 0
        for i, weight in enumerate(self.weights):
            done = pruned_steps[weight.slot]
            latest = self.latest_update(step if weight.variable.trainable else done)
            if latest != NEVER and step > 0:
                zeros += weight.spec.pattern.count_zeros(self.counts(latest)[i])
        return zeros

    def read_masks(self, step):
        """Starts `zeros_at` from the contents of the masks after `step` steps.

        If the schedule is not known ahead, call this where masks can be read. A batch's callback is
        not such a place, because JAX has handed the masks to the step.
        """
        if not self.is_stepped:
            with self._lock:
                self._watched, self._changes = step, [(step, self._masked_zeros())]

    def _watch(self, step):
        """Computes `zeros_at` for a schedule that only knows whether it is due at a given step.

        It evaluates the schedule step by step, starting where the masks were read. Keras runs the
        callbacks of several steps on several threads and in any order, so earlier steps are
        remembered.
        """
        if not self._changes or step < self._changes[0][0]:
            self.read_masks(max(step - 1, 0))
        with self._lock:
            for now in range(self._watched + 1, step + 1):
                latest = self.latest_update(now, after=NEVER if now == 1 else now - 1)
                if latest != NEVER:
                    self._changes.append((now, self._count_zeros(self.counts(latest))))
                self._watched = now
            latest = bisect.bisect_right(self._changes, step, key=operator.itemgetter(0)) - 1
            return self._changes[latest][1]

    def _masked_zeros(self):
        return sum(count_zeros([weight.mask for weight in self.weights]))

    def _count_zeros(self, counts):
        return sum(
            weight.spec.pattern.count_zeros(count)
            for weight, count in zip(self.weights, counts, strict=True)
        )


def group_by_schedule(pruned_weights):
    """List of `ScheduleGroup`, one per distinct schedule of the weights."""
    groups = {}
    for weight in pruned_weights:
        groups.setdefault(id(weight.spec.schedule), []).append(weight)
    return [ScheduleGroup(weights[0].spec.schedule, weights) for weights in groups.values()]
