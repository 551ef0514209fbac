"""Callbacks in any order: what `UpdatePruningStep` logs is there for all of them.

Keras hands the logs of an epoch to one callback after the other, so those that stand before
`UpdatePruningStep` would not see `sparsity`. Its checks, on the other hand, are of what all others
have left, such as weights that `EarlyStopping` has brought back. So wherever it stands, a helper of
it goes to the front of the list, and itself to the end. `fit` works on a copy of the user's list.
"""

import functools

import keras


def install(is_moved) -> None:
    """Has each `keras.callbacks.CallbackList` from now on arrange its callbacks.

    Args:
        is_moved: Function of a callback: whether it has a `front`, a callback that comes first.
    """
    original = keras.callbacks.CallbackList.set_model
    if hasattr(original, "_keras_trim"):
        return

    @functools.wraps(original)
    def set_model(self, model):
        if model is not None:
            _arrange(self.callbacks, is_moved)
        return original(self, model)

    set_model._keras_trim = True
    keras.callbacks.CallbackList.set_model = set_model


def _arrange(callbacks, is_moved):
    moved = [callback for callback in callbacks if is_moved(callback)]
    fronts = [callback.front for callback in moved]
    rest = [c for c in callbacks if all(c is not own for own in (*moved, *fronts))]
    callbacks[:] = [*fronts, *rest, *moved]
