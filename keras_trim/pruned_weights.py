"""The weights that an optimizer prunes, and how many units of each at which step."""

import bisect
import dataclasses
import operator
import threading

import keras
import numpy as np
from keras import ops

from keras_trim.counting import count_zeros
from keras_trim.schedules import SteppedSchedule, validate_sparsity
from keras_trim.specs import PruningSpec

# Above this many entries the table of counts is not worth its memory in the compiled step.
MAX_TABLE_ENTRIES = 2**22


@dataclasses.dataclass(frozen=True, eq=False)
class PrunedWeight:
    """A weight that an optimizer prunes, and its mask.

    Args:
        index: Integer. Its place among the variables that the optimizer was built with.
        variable: The Keras variable.
        spec: `PruningSpec`.
        mask: Bool Keras variable of the same shape, `True` where the weight is kept.
    """

    index: int
    variable: keras.Variable
    spec: PruningSpec
    mask: keras.Variable


class ScheduleGroup:
    """The weights that follow one schedule, and the counts it asks of them, step by step."""

    def __init__(self, schedule, weights):
        self.schedule = schedule
        self.weights = weights
        self._zeros = {}
        self._lock = threading.Lock()
        self._watched = None  # the last step evaluated, of a schedule that is not known ahead
        self._changes = []  # of it: (step, zeros in all the weights from then on)
        self._table = None
        is_stepped = isinstance(schedule, SteppedSchedule)
        if is_stepped and schedule.num_updates * len(weights) <= MAX_TABLE_ENTRIES:
            steps = (schedule.update_step(i) for i in range(schedule.num_updates))
            self._table = np.array([self._counts(step) for step in steps], "int32")

    def _counts(self, step):
        """List of integers, exact: the units to prune of each weight at `step`."""
        sparsity = self.schedule.sparsity_at(step)
        return [weight.spec.count_pruned(sparsity) for weight in self.weights]

    def counts_on_host(self, before, step):
        """List of integers, or `None` if no update is due.

        Args:
            before: Integer. Steps finished before this one.
            step: Integer. Steps finished now; the same where gradients only accumulated.
        """
        if step == before:
            return None
        due, sparsity = self._evaluate(step)
        if not due and before == 0:  # what is due at step 0 is done with the first step
            due, sparsity = self._evaluate(0)
            step = 0
        if not due:
            return None
        if isinstance(self.schedule, SteppedSchedule):
            return self._counts(self.schedule.update_step(self.schedule.update_index(step)))
        return [int(weight.spec.count_pruned(sparsity)) for weight in self.weights]

    def _evaluate(self, step):
        if not isinstance(self.schedule, SteppedSchedule):
            due, sparsity = self.schedule(ops.convert_to_tensor(step, "int32"))
            if due:
                validate_sparsity(float(sparsity), "sparsity of the schedule")
            return bool(due), sparsity
        return self.schedule(step)

    def counts_in_graph(self, before, step):
        """Scalar bool tensor (an update is due) and a function that makes the counts of it.

        That is an int32 tensor of shape (weights,), to be made only where an update is due.
        """
        due_now, _ = self.schedule(step)
        if isinstance(self.schedule, SteppedSchedule):
            due_at_0, _ = self.schedule(0)  # known ahead
        else:
            due_at_0, _ = self.schedule(ops.zeros_like(step))
        is_first = ops.equal(before, 0)
        due = ops.logical_or(due_now, ops.logical_and(is_first, due_at_0))
        due = ops.logical_and(due, ops.not_equal(step, before))

        def counts():
            use_0 = ops.logical_and(is_first, ops.logical_not(due_now))
            at = ops.where(use_0, ops.zeros_like(step), step)
            if self._table is not None:
                index = self.schedule.update_index(at)
                return ops.take(ops.convert_to_tensor(self._table), index, axis=0)
            _, sparsity = self.schedule(at)
            counts = [weight.spec.count_pruned(sparsity) for weight in self.weights]
            return ops.stack([ops.cast(count, "int32") for count in counts])

        return due, counts

    def zeros_at(self, step):
        """Integer: zeros in all the weights after `step` steps."""
        schedule = self.schedule
        if not isinstance(schedule, SteppedSchedule):
            return self._watch(step)
        if step < schedule.begin_step or step == 0:
            return 0
        step = schedule.update_step(schedule.update_index(step))
        if step not in self._zeros:
            self._zeros[step] = self._count_zeros(self._counts(step))
        return self._zeros[step]

    def read_masks(self, step):
        """Start `zeros_at` from what the masks hold, after `step` steps.

        Where the schedule is not known ahead, this must be called where masks can be read: not
        in a batch's callback, since JAX has handed them to the step.
        """
        if not isinstance(self.schedule, SteppedSchedule):
            with self._lock:
                self._watched, self._changes = step, [(step, self._masked_zeros())]

    def _watch(self, step):
        """`zeros_at` for a schedule that tells of a step only whether it is due then.

        So it is evaluated step by step, from where the masks were read. Keras runs callbacks of
        several steps on several threads, in any order: earlier steps are remembered.
        """
        if not self._changes or step < self._changes[0][0]:
            self.read_masks(max(step - 1, 0))
        with self._lock:
            for now in range(self._watched + 1, step + 1):
                counts = self.counts_on_host(now - 1, now)
                if counts is not None:
                    self._changes.append((now, self._count_zeros(counts)))
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
    """List of `ScheduleGroup`, one for each different schedule of the weights."""
    groups = {}
    for weight in pruned_weights:
        groups.setdefault(id(weight.spec.schedule), []).append(weight)
    return [ScheduleGroup(weights[0].spec.schedule, weights) for weights in groups.values()]
