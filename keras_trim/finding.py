"""Finds the `PruningOptimizer`s of a model, in `optimizer` or any other attribute."""

import functools

import keras


def find_pruning_optimizer(optimizer):
    """Returns the `PruningOptimizer` in a chain of wrapped optimizers, or `None`."""
    while optimizer is not None and not hasattr(optimizer, "pruned_weights"):
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return optimizer


def find_pruning_optimizers(model):
    """Lists the `PruningOptimizer`s of a model, each once.

    A model with a custom `train_step`, such as a GAN, may keep several optimizers in attributes of
    any name, including lists, tuples and dicts.
    """
    found = [find_pruning_optimizer(optimizer) for optimizer, _ in optimizer_places(model)]
    return list({id(each): each for each in found if each is not None}.values())


def optimizer_places(model):
    """Lists all optimizers of a model as tuples (optimizer, function).

    The function puts another optimizer in its place.
    """
    places = []
    for name, value in vars(model).items():
        if isinstance(value, keras.optimizers.Optimizer):
            places.append((value, functools.partial(setattr, model, name)))
        elif isinstance(value, (dict, list, tuple)):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(item, keras.optimizers.Optimizer):
                    places.append((item, functools.partial(_replace_inside, model, name, key)))
    return places


def _replace_inside(model, name, key, optimizer):
    container = getattr(model, name)
    if isinstance(container, tuple):
        items = [*container[:key], optimizer, *container[key + 1 :]]
        make = getattr(container, "_make", tuple)  # of a named tuple
        setattr(model, name, make(items))
    else:
        container[key] = optimizer
