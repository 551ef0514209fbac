"""An error where a model that is marked for pruning would be trained without it.

Keras gives a layer no say in which optimizer trains it. So the first mark in a process puts a check
before two methods of Keras: `Model.make_train_function`, with which `fit` and `train_on_batch`
begin, and `Optimizer.apply`, through which every other training loop goes. Both raise before any
weight has moved. `Model.save` warns where the marks would not be saved.
"""

import contextlib
import functools
import threading
import warnings

import keras

from keras_trim.marks import get_spec, marked_variables, resolve_pending

_MESSAGE = (
    "This model is marked for pruning, but nothing would prune it. Pass "
    "`callbacks=[keras_trim.UpdatePruningStep()]` to `fit()`, compile it with "
    "`keras_trim.PruningOptimizer(...)` around your optimizer, or, in your own training loop, call "
    "that optimizer's `apply`. `keras_trim.strip_pruning(model)` takes the marks off. "
    "Received: optimizer={}"
)
_state = threading.local()


def find_pruning_optimizer(optimizer):
    """The `PruningOptimizer` in a chain of wrapped optimizers, or `None`."""
    while optimizer is not None and not hasattr(optimizer, "pruned_weights"):
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return optimizer


@contextlib.contextmanager
def pruning():
    """Within it the wrapped optimizer may move marked weights."""
    before = getattr(_state, "pruning", False)
    _state.pruning = True
    try:
        yield
    finally:
        _state.pruning = before


def install():
    """Puts the checks in place, once per process."""
    if getattr(keras.Model.make_train_function, "_keras_trim_guard", False):
        return
    make_train_function = keras.Model.make_train_function
    save = keras.Model.save
    apply = keras.optimizers.Optimizer.apply

    @functools.wraps(make_train_function)
    def guarded_make_train_function(model, *args, **kwargs):
        optimizer = getattr(model, "optimizer", None)
        if find_pruning_optimizer(optimizer) is None and marked_variables(model):
            raise ValueError(_MESSAGE.format(type(optimizer).__name__))
        return make_train_function(model, *args, **kwargs)

    @functools.wraps(save)
    def guarded_save(model, *args, **kwargs):
        optimizer = getattr(model, "optimizer", None)
        if find_pruning_optimizer(optimizer) is None and marked_variables(model):
            warnings.warn(
                "This model is marked for pruning, but has no `PruningOptimizer`, which is what "
                "saves that: it will load as a plain model. Mark it again after loading, or call "
                "`keras_trim.strip_pruning(model)` before saving if that is what you want.",
                stacklevel=2,
            )
        return save(model, *args, **kwargs)

    @functools.wraps(apply)
    def guarded_apply(optimizer, grads, trainable_variables=None):
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
        if not getattr(_state, "pruning", False):
            resolve_pending()
            variables = trainable_variables or optimizer._trainable_variables
            if any(get_spec(variable) is not None for variable in variables):
                raise ValueError(_MESSAGE.format(type(optimizer).__name__))
        return apply(optimizer, grads, trainable_variables)

    guarded_make_train_function._keras_trim_guard = True
    keras.Model.make_train_function = guarded_make_train_function
    keras.Model.save = guarded_save
    keras.optimizers.Optimizer.apply = guarded_apply
