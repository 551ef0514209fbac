"""Raises an error if a `torch.optim` optimizer would train a marked model without pruning.

PyTorch calls hooks before and after each step of any of its optimizers. The hook looks up the
marked weights among those an optimizer trains, and again if either have changed since its last
step. Otherwise a step only costs that comparison.
"""

import weakref

from keras_trim.annotations import all_marked_variables, changes, get_spec
from keras_trim.arguments import counted
from keras_trim.backend import BACKEND

_pruners = weakref.WeakValueDictionary()  # id -> pruner, the newest last
_known = weakref.WeakKeyDictionary()  # optimizer -> (what it trained, references to its pruners)
_unapplied = weakref.WeakKeyDictionary()  # pruner -> optimizers that stepped since its `apply`


def install():
    """Makes any `torch.optim` optimizer raise if it would move marked weights unpruned."""
    if BACKEND != "torch":
        return
    from torch.optim.optimizer import (
        register_optimizer_step_post_hook,
        register_optimizer_step_pre_hook,
    )

    register_optimizer_step_pre_hook(_before_step)
    register_optimizer_step_post_hook(_after_step)


def expect(pruner):
    """Registers a pruner that takes care of its weights."""
    if BACKEND == "torch":
        _pruners[id(pruner)] = pruner
        _known.clear()


def applied(pruner):
    """Records that a pruner has been applied."""
    _unapplied.pop(pruner, None)


def _before_step(optimizer, *_):
    for pruner in _pruners_of(optimizer):
        if optimizer in _unapplied.get(pruner, ()):
            raise ValueError(
                "`pruner.apply()` was not called after the last step, so that pruned weights are "
                "no longer zero. Call it after each `optimizer.step()`. "
                f"Received: optimizer={type(optimizer).__name__}"
            )


def _after_step(optimizer, *_):
    _, references = _known.get(optimizer, (None, ()))
    for reference in references:
        pruner = reference()
        if pruner is not None:
            _unapplied.setdefault(pruner, weakref.WeakSet()).add(optimizer)


def _pruners_of(optimizer):
    """Returns the list of pruners of the weights that an optimizer trains."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    trained = [id(parameter) for parameter in parameters]
    known, references = _known.get(optimizer, (None, ()))
    pruners = [reference() for reference in references]
    if known != (changes(), trained) or None in pruners:
        pruners = _find_pruners(optimizer, parameters)
        # Finding them may have marked weights that were built since.
        _known[optimizer] = (changes(), trained), [weakref.ref(pruner) for pruner in pruners]
    return pruners


def _find_pruners(optimizer, parameters):
    """Returns the list of pruners of an optimizer's parameters.

    Raises:
        ValueError: if a marked weight has no pruner that follows its mark.
    """
    marked = {id(variable.value): variable for variable in all_marked_variables()}
    owners = {
        id(weight.variable.value): pruner
        for pruner in _pruners.values()
        for weight in pruner.pruned_weights
        if get_spec(weight.variable) is weight.spec
    }
    trained = [id(parameter) for parameter in parameters if id(parameter) in marked]
    unpruned = [marked[each].path for each in trained if each not in owners]
    if unpruned:
        raise ValueError(
            "This model is marked for pruning, but nothing would prune it: make a "
            "`keras_trim.Pruner(model)`, a new one if marks have changed, and call its `apply()` "
            "after each `optimizer.step()`. "
            "`keras_trim.strip_pruning(model)` takes the marks off. Received: "
            f"optimizer={type(optimizer).__name__}, "
            + counted(len(unpruned), "marked {weights|weight} without a pruner, ")
            + f"{', '.join(unpruned[:4])}{' ...' if len(unpruned) > 4 else ''}"
        )
    return list({id(owners[each]): owners[each] for each in trained}.values())
