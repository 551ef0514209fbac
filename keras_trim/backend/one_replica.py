"""Variables without replicas, as they are on JAX and PyTorch."""

import contextlib


def strategy_of(optimizer):
    """`None`: there is no `tf.distribute.Strategy`."""
    del optimizer


def current_strategy():
    return None


def strategy_scope(optimizer):
    del optimizer
    return contextlib.nullcontext()


def end_step(function, strategy):
    """Calls a function, after a step is done."""
    del strategy
    function()


def placed_like(variable, strategy):
    """A context in which new variables lie where `variable` does."""
    del variable, strategy
    return contextlib.nullcontext()


def assign_last(variable, value, after, strategy=None):
    """Assigns a value; a step is done as a whole or not at all, so the order does not matter."""
    del after, strategy
    variable.assign(value)
