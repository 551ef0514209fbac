"""Finds the `PruningOptimizer`s of a model, in `optimizer` or any other attribute."""

import keras


def find_pruning_optimizer(optimizer):
    """Returns the `PruningOptimizer` in a chain of wrapped optimizers, or `None`."""
    while optimizer is not None and not hasattr(optimizer, "pruned_weights"):
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return optimizer


def find_pruning_optimizers(model):
    """Lists the `PruningOptimizer`s of a model, each once.

    A model with a custom `train_step`, such as a GAN, may keep several optimizers in attributes of
    any name, including lists and dicts.
    """
    found = [find_pruning_optimizer(optimizer) for _, _, optimizer in optimizer_places(model)]
    return list({id(each): each for each in found if each is not None}.values())


def optimizer_places(model):
    """Lists all optimizers of a model as tuples (container, key, optimizer).

    `set_optimizer(container, key, new)` replaces one.
    """
    places = []
    for name, value in vars(model).items():
        if isinstance(value, keras.optimizers.Optimizer):
            places.append((model, name, value))
        elif isinstance(value, (dict, list)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            places += [
                (value, key, item)
                for key, item in items
                if isinstance(item, keras.optimizers.Optimizer)
            ]
    return places


def set_optimizer(container, key, optimizer):
    if isinstance(container, (dict, list)):
        container[key] = optimizer
    else:
        setattr(container, key, optimizer)
