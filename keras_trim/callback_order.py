"""Makes the order of callbacks irrelevant: all of them see what `UpdatePruningStep` logs.

Keras passes the logs of an epoch from one callback to the next, so callbacks before
`UpdatePruningStep` would not see `sparsity`. But its checks must run after all other callbacks, for
example after `EarlyStopping` has restored weights. So wherever it is, a helper moves to the front
of the list and the callback itself to the end. `fit` uses a copy of the user's list.
"""

import functools

import keras


def install(is_moved) -> None:
    """Makes every new `keras.callbacks.CallbackList` arrange its callbacks.

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
