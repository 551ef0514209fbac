"""Puts a `PruningOptimizer` into a compiled model, and takes it out again."""

import contextlib

import keras

from keras_trim.guard import find_pruning_optimizer
from keras_trim.marks import is_built
from keras_trim.optimizer import PruningOptimizer


def attach(model):
    """Wraps the optimizer of a compiled model in a `PruningOptimizer`, unless it already is.

    A `LossScaleOptimizer` stays outermost. Momenta and the count of steps are kept.

    Args:
        model: A `keras.Model` with an optimizer.

    Returns:
        The `PruningOptimizer`.
    """
    optimizer = find_pruning_optimizer(model.optimizer)
    if optimizer is not None:
        return optimizer
    outer = model.optimizer
    is_scaled = isinstance(outer, keras.optimizers.LossScaleOptimizer)
    inner = outer.inner_optimizer if is_scaled else outer
    with _scope(inner):
        optimizer = PruningOptimizer(inner)
        # Layers that are never called stay without weights; an inner optimizer that has been built
        # takes no others any more.
        if inner.built or (model.built and is_built(model)):
            optimizer.build(model.trainable_variables)
    if outer is optimizer.inner_optimizer:
        _set_optimizer(model, optimizer)
    else:
        outer.inner_optimizer = optimizer
        _set_optimizer(model, outer)
    return optimizer


def _scope(optimizer):
    """The scope of the `tf.distribute.Strategy` that an optimizer was made in."""
    strategy = getattr(optimizer, "_distribution_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def detach(model):
    """Puts the wrapped optimizer back in the place of its `PruningOptimizer`, if there is one."""
    optimizer = find_pruning_optimizer(getattr(model, "optimizer", None))
    if optimizer is None:
        return
    if model.optimizer is optimizer:
        _set_optimizer(model, optimizer.inner_optimizer)
    else:
        model.optimizer.inner_optimizer = optimizer.inner_optimizer
        _set_optimizer(model, model.optimizer)


def _set_optimizer(model, optimizer):
    model.optimizer = optimizer
    # The compiled step holds the optimizer it was traced with.
    model.train_function = None
    if hasattr(model, "_compile_config"):  # what a saved model is compiled from
        model._compile_config.config["optimizer"] = optimizer
