"""Warnings before training: schedules, masks and weights that do not match."""

import dataclasses
import math
import warnings

from keras import ops

from keras_trim.annotations import get_annotation, marked_variables
from keras_trim.arguments import counted
from keras_trim.counting import count_nonzero_outside, count_zeros
from keras_trim.hosts import to_numpy
from keras_trim.kinds import is_table
from keras_trim.policies import candidates
from keras_trim.schedule_groups import NEVER
from keras_trim.schedules import ConstantSparsity, PolynomialDecay, is_known_ahead

# A share of the remaining weights. A gradual schedule is not meant to prune more than this in the
# last step of training.
_LARGE_JUMP = 0.4
# A few zeros may be chance. A pruned weight has more than this share.
_FEW_ZEROS = 0.01
_ONE_JUMP = 0.9  # of the way to the final sparsity, in a single update


@dataclasses.dataclass(frozen=True)
class Run:
    """The training that a call of `fit` will do.

    Args:
        start: Integer. The number of finished steps.
        end: Integer. The number of finished steps at the end of training.
        epochs: Integer. The number of epochs to train.
    """

    start: int
    end: int
    epochs: int

    @property
    def steps_per_epoch(self):
        return max((self.end - self.start) // max(self.epochs, 1), 1)


def warn_before_training(model, optimizers, run):
    """Warns of settings that will not have the intended effect.

    Args:
        model: The `keras.Model`.
        optimizers: List of its `PruningOptimizer`s, built.
        run: `Run`, or `None` if its length is not known.

    Returns:
        Bool: whether it warned that a schedule ends after the run.
    """
    weights = [weight for optimizer in optimizers for weight in optimizer.pruned_weights]
    _warn_of_untrained(model, weights)
    _warn_of_added(model)
    is_end_told = False
    for schedule in {id(s): s for o in optimizers for s in o.schedules}.values():
        if is_known_ahead(schedule) and run is not None:
            followers = [weight for weight in weights if weight.spec.schedule is schedule]
            is_end_told |= _warn_of_misfit(schedule, followers, run)
    return is_end_told


def warn_of_state(optimizer):
    """Warns if weights and masks of a built `PruningOptimizer` do not match."""
    _warn_of_revival(optimizer.pruned_weights, int(to_numpy(optimizer.iterations)))
    _warn_of_replaced_weights(optimizer.pruned_weights)
    _warn_of_late_start(optimizer)


def has_pruned(weights):
    """Whether the masks of a list of `PrunedWeight`s contain a zero."""
    return any(count_zeros([weight.mask for weight in weights]))


def _warn_of_untrained(model, weights):
    # Frozen embedding tables hold vectors that were learned elsewhere and should stay.
    tables = {id(c.variable) for c in candidates(model) if is_table(c.layer, c.variable)}
    pruned = {id(weight.variable) for weight in weights if weight.variable.trainable}
    left_out = [v.path for v in marked_variables(model) if id(v) not in pruned | tables]
    if left_out:
        warnings.warn(
            counted(
                len(left_out),
                "{weights that are|weight that is} marked for pruning {are|is} not trained, so "
                "{they stay as they are|it stays as it is}: ",
            )
            + f"{_some(left_out, ', ')}. Set `layer.trainable = True` and compile again, "
            "or mark other layers.",
            stacklevel=5,
        )


def _warn_of_added(model):
    """Warns of weights that came into a model after it was marked as a whole."""
    found = candidates(model)
    roots = [get_annotation(each.variable) for each in found]
    if not any(root is not None and root.root is model for root in roots):
        return
    added = [
        each.variable.path
        for each, root in zip(found, roots, strict=True)
        if root is None and each.reason is None and each.variable.trainable
    ]
    if added:
        warnings.warn(
            counted(
                len(added),
                "{weights were|weight was} added after the model was marked for pruning, and "
                "{stay|stays} dense: ",
            )
            + f"{_some(added, ', ')}. Mark the model once all layers are in it, then compile.",
            stacklevel=5,
        )


def _warn_of_revival(weights, step):
    """Warns if the schedule asks for less than the current sparsity: it would revive weights."""
    revived = []
    counts = count_zeros([weight.variable for weight in weights])
    masked = count_zeros([weight.mask for weight in weights])
    for weight, zeros, masked_zeros in zip(weights, counts, masked, strict=True):
        keeps_zeros = getattr(weight.spec.schedule, "starts_from_zeros", False)
        if masked_zeros and not keeps_zeros:
            continue
        asked = masked_zeros if keeps_zeros else _least_zeros(weight.spec, step)
        size = math.prod(weight.variable.shape)
        if asked < zeros < size and zeros > _FEW_ZEROS * size:
            revived.append(f"{weight.variable.path}: {zeros / size:.2%} > {asked / size:.2%}")
    if revived:
        warnings.warn(
            counted(
                len(revived),
                "{weights are|weight is} sparser already than the schedule asks for from here on, ",
            )
            + f"so zeros may become nonzero again ({_some(revived)}). Begin at "
            "once (`begin_step`), with `initial_sparsity` (or `target_sparsity`) at least as high "
            "as the sparsity that the weights have. Or mark the model with "
            "`keras_trim.KeepZeros()` and compile it again.",
            stacklevel=5,
        )


def _least_zeros(spec, step):
    """The fewest zeros that a schedule asks for in what it still has to do after `step` steps."""
    schedule, zeros, following = spec.schedule, spec.target_zeros, step + 1
    if not is_known_ahead(schedule):
        _, sparsity = schedule(ops.convert_to_tensor(following, "int32"))
        first = spec.pattern.count_zeros(int(spec.count_pruned(sparsity)))
    else:
        first = 0 if following < schedule.begin_step else spec.first_zeros
    return first if zeros is None else min(first, zeros)


def _warn_of_replaced_weights(weights):
    """Warns if weights are not zero where their masks are: something has replaced them."""
    weights = [weight for weight in weights if weight.variable.trainable]
    counts = count_nonzero_outside([w.variable for w in weights], [w.mask for w in weights])
    replaced = [w.variable.path for w, count in zip(weights, counts, strict=True) if count]
    if replaced:
        warnings.warn(
            counted(
                len(replaced),
                "{weights are|weight is} not zero where the masks of this optimizer are: "
                "{they were|it was} replaced since, ",
            )
            + "by `set_weights`, `load_weights` or a callback "
            f"that restores them ({_some(replaced, ', ')}). Training continues with the old masks, "
            "momenta and step. To train the new weights from the beginning, call "
            "`model.compile()` again with a new optimizer.",
            stacklevel=5,
        )


def _warn_of_late_start(optimizer):
    """Warns if the schedule has begun but neither masks nor weights show it: it will jump."""
    step = int(to_numpy(optimizer.iterations))
    done = to_numpy(optimizer.pruned_steps)
    for schedule in optimizer.schedules:
        if not is_known_ahead(schedule) or step == 0:
            continue
        followers = [w for w in optimizer.pruned_weights if w.spec.schedule is schedule]
        latest = schedule.latest_update(step)
        if latest == NEVER or any(done[weight.slot] != NEVER for weight in followers):
            continue
        sparsity = schedule.sparsity_at(latest)
        zeros = sum(count_zeros([weight.variable for weight in followers]))
        size = sum(math.prod(weight.variable.shape) for weight in followers)
        if zeros < 0.9 * sparsity * size:
            over = schedule.end_step if 0 <= schedule.end_step <= step else None
            has_begun = (
                f"began at step {schedule.begin_step}"
                if over is None
                else (f"ended at step {over}")
            )
            warnings.warn(
                f"The pruning schedule {has_begun}, but the optimizer is at step {step} already: "
                f"{sparsity:.0%} of the weights are pruned at once. Compile the model again to "
                "count from 0, or shift the schedule.",
                stacklevel=5,
            )


def _warn_of_misfit(schedule, weights, run):
    """Warns once if a schedule does not suit the run. Returns whether it ends after the run."""
    has_begun = has_pruned(weights)
    due_now = run.start == 0 and schedule.begin_step == 0
    following = 0 if due_now else schedule.next_update(run.start)
    problem = None
    is_beyond = run.end < schedule.end_step
    if following is not None and following > run.end and not has_begun:
        problem = (
            f"will not fire: its next update is at step {following}, but this `fit` goes from step "
            f"{run.start} to {run.end}"
        )
    elif is_beyond:
        reached = schedule.sparsity_at(schedule.latest_update(run.end))
        problem = (
            f"ends at step {schedule.end_step}, but this `fit` goes from step {run.start} to "
            f"{run.end} only, where it has come to {reached:.0%} zeros of "
            f"{schedule.final_sparsity:.0%}"
        )
    elif not has_begun:
        problem = _haste(schedule, run, following) if following is not None else None
    if problem is not None:
        more = " Or train for more steps." if is_beyond else ""
        advice = f"{_advice(schedule, run)}{more}"
        warnings.warn(f"The pruning schedule {problem}. {advice}", stacklevel=6)
    return is_beyond


def _haste(schedule, run, following):
    """Returns what is wrong with a schedule that leaves no time to adapt, or `None`."""
    per_epoch = run.steps_per_epoch
    is_ramp = schedule.num_updates > 1
    if is_ramp and schedule.end_step <= min(run.epochs, per_epoch - 1):
        return (
            f"is over at step {schedule.end_step}, within the first epoch: schedules count steps, "
            f"not epochs, and an epoch of this `fit` has {per_epoch}"
        )
    last = schedule.latest_update(run.end)
    before = schedule.sparsity_at(schedule.latest_update(last - 1)) if last > following else 0.0
    jump = schedule.sparsity_at(last) - before
    if last == run.end and jump > _LARGE_JUMP * (1 - before):
        return (
            f"goes from {before:.0%} to {before + jump:.0%} zeros at step {last}, the last of this "
            "`fit`: no step is left in which the network could recover"
        )
    first, final = schedule.sparsity_at(schedule.begin_step), schedule.final_sparsity
    span = schedule.end_step - schedule.begin_step
    if not is_ramp or final - first <= _LARGE_JUMP * (1 - first):
        return None
    reached = schedule.sparsity_at(schedule.update_step(1))
    if schedule.frequency > 1 and reached - first > _ONE_JUMP * (final - first):
        return (
            f"goes from {first:.0%} to {reached:.0%} zeros in one jump: masks are updated every "
            f"{schedule.frequency} steps, and its ramp has {span}"
        )
    return None


def _advice(schedule, run):
    """Returns a sentence: what to write for this run."""
    length = run.end - run.start
    if not isinstance(schedule, (ConstantSparsity, PolynomialDecay)):
        return "Choose an earlier `begin_step` or `end_step`, or a smaller `frequency`."
    if isinstance(schedule, ConstantSparsity):
        begin, frequency = run.start, max(min(length // 8, schedule.frequency), 1)
        return (
            f"Write `ConstantSparsity({schedule.final_sparsity:g}, begin_step={begin}, "
            f"frequency={frequency})`."
        )
    begin = schedule.begin_step if schedule.begin_step < run.start + length // 2 else run.start
    end = max(begin + (run.end - begin + 1) // 2, begin + 1)
    frequency = max(min((end - begin) // 16, schedule.frequency), 1)
    return (
        f"Write `PolynomialDecay({schedule.initial_sparsity:g}, {schedule.final_sparsity:g}, "
        f"begin_step={begin}, end_step={end}, frequency={frequency})`, which leaves the other half "
        "of the run to adapt; `PolynomialDecay.for_epochs` computes such numbers."
    )


def _some(items, separator="; "):
    return separator.join(items[:4]) + (" ..." if items[4:] else "")
