"""Variables without replicas: JAX and PyTorch."""

import contextlib


def strategy_of(optimizer):
    """Returns `None`: there is no `tf.distribute.Strategy`."""
    del optimizer


def current_strategy():
    return None


def strategy_scope(optimizer):
    del optimizer
    return contextlib.nullcontext()


def on_all_replicas(function, strategy):
    """Calls a function."""
    del strategy
    function()


def placed_like(variable, strategy):
    """Returns a context in which new variables are placed like `variable`."""
    del variable, strategy
    return contextlib.nullcontext()


def assign_last(variable, value, after, strategy=None):
    """Assigns a value. A step here completes or never happens, so the order does not matter."""
    del after, strategy
    variable.assign(value)
