"""Raises an error if a `torch.optim` optimizer would train a marked model without pruning.

PyTorch calls hooks before and after each step of any of its optimizers. The hook looks up the
marked weights when an optimizer takes its first step; after that, a step only costs the check of a
flag.
"""

import threading
import weakref

from keras_trim.annotations import marked_variables
from keras_trim.backend import BACKEND

_roots = weakref.WeakSet()  # layers and models that have been marked
_pruners = weakref.WeakSet()
_known = weakref.WeakKeyDictionary()  # optimizer -> list of references to its pruners
_moved = weakref.WeakSet()  # pruners whose weights have moved since the last `apply`
_lock = threading.Lock()
_is_installed = False


def watch(root):
    """Makes any `torch.optim` optimizer raise if it would move marked weights unpruned."""
    global _is_installed
    if BACKEND != "torch":
        return
    from torch.optim.optimizer import (
        register_optimizer_step_post_hook,
        register_optimizer_step_pre_hook,
    )

    with _lock:
        _roots.add(root)
        _known.clear()
        if not _is_installed:
            register_optimizer_step_pre_hook(_before_step)
            register_optimizer_step_post_hook(_after_step)
            _is_installed = True


def expect(pruner):
    """Registers a pruner that takes care of its weights."""
    if BACKEND == "torch":
        _pruners.add(pruner)
        _known.clear()


def applied(pruner):
    """Records that a pruner has been applied."""
    _moved.discard(pruner)


def _before_step(optimizer, *_):
    if optimizer not in _known:
        _known[optimizer] = [weakref.ref(pruner) for pruner in _find_pruners(optimizer)]
    for reference in _known[optimizer]:
        if reference() in _moved:
            raise ValueError(
                "`pruner.apply()` was not called after the last step, so that pruned weights are "
                "no longer zero. Call it after each `optimizer.step()`. "
                f"Received: optimizer={type(optimizer).__name__}"
            )


def _after_step(optimizer, *_):
    for reference in _known.get(optimizer, ()):
        pruner = reference()
        if pruner is not None:
            _moved.add(pruner)


def _find_pruners(optimizer):
    """Returns the set of pruners of an optimizer's weights.

    Raises:
        ValueError: if a marked weight has no pruner.
    """
    owners = {id(w.variable.value): p for p in list(_pruners) for w in p.pruned_weights}
    marked = {id(v.value): v for root in list(_roots) for v in marked_variables(root)}
    pruners, unpruned = set(), []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) in owners and id(parameter) in marked:
                pruners.add(owners[id(parameter)])
            elif id(parameter) in marked and parameter.requires_grad:
                unpruned.append(marked[id(parameter)].path)
    if unpruned:
        raise ValueError(
            "This model is marked for pruning, but nothing would prune it: make a "
            "`keras_trim.Pruner(model)`, and call its `apply()` after each `optimizer.step()`. "
            "`keras_trim.strip_pruning(model)` takes the marks off. Received: "
            f"optimizer={type(optimizer).__name__}, {len(unpruned)} marked weights without a "
            f"pruner, {', '.join(unpruned[:4])}{' ...' if len(unpruned) > 4 else ''}"
        )
    return pruners
