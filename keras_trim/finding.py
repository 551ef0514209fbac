"""The `PruningOptimizer`s of a model: in its `optimizer`, or wherever a model keeps its own."""

import keras


def find_pruning_optimizer(optimizer):
    """The `PruningOptimizer` in a chain of wrapped optimizers, or `None`."""
    while optimizer is not None and not hasattr(optimizer, "pruned_weights"):
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return optimizer


def find_pruning_optimizers(model):
    """List of the `PruningOptimizer`s that a model holds, each once.

    A model whose `train_step` is its own, such as a GAN, may keep several optimizers under names of
    its own, also in lists and dicts.
    """
    found = [find_pruning_optimizer(optimizer) for _, _, optimizer in optimizer_places(model)]
    return list({id(each): each for each in found if each is not None}.values())


def optimizer_places(model):
    """List of tuples (container, key, optimizer) of all optimizers that a model holds.

    `set_optimizer(container, key, new)` puts another one there.
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
