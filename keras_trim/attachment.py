"""Attaches a `PruningOptimizer` to a compiled model, and detaches it again."""

import keras

from keras_trim import backend
from keras_trim.annotations import is_built, is_to_be_pruned
from keras_trim.finding import (
    find_pruning_optimizer,
    find_pruning_optimizers,
    optimizer_places,
)
from keras_trim.optimizer import PruningOptimizer


def attach(model):
    """Wraps the optimizer of a marked model in a `PruningOptimizer`, unless the model has one.

    A `LossScaleOptimizer` stays outermost. Momenta and the step counter are kept.

    Args:
        model: A `keras.Model`. It is left unchanged if it has no optimizer or no weights to prune.

    Returns:
        List of the `PruningOptimizer`s of the model.
    """
    optimizers = find_pruning_optimizers(model)
    outer = getattr(model, "optimizer", None)
    if optimizers or outer is None or not is_to_be_pruned(model):
        return optimizers
    is_scaled = isinstance(outer, keras.optimizers.LossScaleOptimizer)
    inner = outer.inner_optimizer if is_scaled else outer
    with backend.strategy_scope(inner):
        optimizer = PruningOptimizer(inner)
        # Layers that are never called never get weights. A built inner optimizer accepts no more
        # variables.
        if inner.built or (model.built and is_built(model)):
            optimizer.build(model.trainable_variables)
    if outer is inner:
        outer = optimizer
    else:
        outer.inner_optimizer = optimizer
    model.optimizer = outer
    _forget_compiled(model)
    return [optimizer]


def detach(model):
    """Puts the wrapped optimizers back in place of their `PruningOptimizer`s."""
    for outer, replace in optimizer_places(model):
        optimizer = find_pruning_optimizer(outer)
        if optimizer is None:
            continue
        if outer is optimizer:
            replace(optimizer.inner_optimizer)
        else:
            outer.inner_optimizer = optimizer.inner_optimizer
        _forget_compiled(model)


def _forget_compiled(model):
    # The compiled step holds the optimizer it was traced with.
    model.train_function = None
    config = getattr(model, "_compile_config", None)  # a saved model is compiled from this
    if config is not None and "optimizer" in config.config:
        config.config["optimizer"] = model.optimizer
