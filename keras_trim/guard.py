"""An error where a model that is marked for pruning would be trained without it.

Keras gives a layer no say in which optimizer trains it. So the first mark in a process puts a check
before two methods of Keras: `Model.make_train_function`, with which `fit` and `train_on_batch`
begin, and `Optimizer.apply`, through which every other loop with a Keras optimizer goes. Both raise
before any weight has moved. `Model.save` and `keras.saving.save_model` warn where the marks would
not be saved.
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


def _check_optimizer(model):
    """Raises `ValueError` unless a model's optimizer prunes what is marked in it, and no more."""
    marked = {id(v): v for v in marked_variables(model) if v.trainable}
    optimizer = find_pruning_optimizer(getattr(model, "optimizer", None))
    if optimizer is None:
        if marked:
            name = type(getattr(model, "optimizer", None)).__name__
            raise ValueError(_MESSAGE.format(name))
        return
    if not optimizer.built:
        return
    pruned = {id(weight.variable): weight for weight in optimizer.pruned_weights}
    changed = [v.path for i, v in marked.items() if i not in pruned]
    changed += [
        weight.variable.path
        for weight in optimizer.pruned_weights
        if get_spec(weight.variable) is not weight.spec
    ]
    if changed:
        raise ValueError(
            "What is marked for pruning has changed since the model's optimizer was built, which "
            "would go on as before: call `model.compile()` again. Received: "
            f"{len(changed)} weights, {', '.join(changed[:4])}{' ...' if changed[4:] else ''}"
        )


def _loses_optimizer(optimizer, filepath="", *args, include_optimizer=True, **kwargs):
    """Whether a model is saved as HDF5, with an optimizer that prunes it."""
    is_hdf5 = str(filepath).endswith((".h5", ".hdf5")) or kwargs.get("save_format") == "h5"
    return is_hdf5 and include_optimizer and find_pruning_optimizer(optimizer) is not None


def install():
    """Puts the checks in place, once per process."""
    if getattr(keras.Model.make_train_function, "_keras_trim_guard", False):
        return
    make_train_function = keras.Model.make_train_function
    apply = keras.optimizers.Optimizer.apply

    @functools.wraps(make_train_function)
    def guarded_make_train_function(model, *args, **kwargs):
        # A `train_step` of one's own may use other optimizers: then `apply` alone can tell.
        if type(model).train_step is keras.Model.train_step:
            _check_optimizer(model)
        return make_train_function(model, *args, **kwargs)

    def guarded(save):
        @functools.wraps(save)
        def guarded_save(model, *args, **kwargs):
            optimizer = getattr(model, "optimizer", None)
            is_model = isinstance(model, keras.Model)
            if is_model and find_pruning_optimizer(optimizer) is None and marked_variables(model):
                warnings.warn(
                    "This model is marked for pruning, but has no `PruningOptimizer`, which is "
                    "what saves that: it will load as a plain model. Mark it again after loading, "
                    "or call `keras_trim.strip_pruning(model)` before saving if that is what you "
                    "want.",
                    stacklevel=2,
                )
            elif is_model and _loses_optimizer(optimizer, *args, **kwargs):
                warnings.warn(
                    "A whole model in HDF5 cannot be loaded with the optimizer that prunes it, as "
                    "Keras restores no optimizer from there. Save it as `.keras`, or only its "
                    "weights as `.weights.h5`, or pass `include_optimizer=False` and go without "
                    "the masks.",
                    stacklevel=2,
                )
            return save(model, *args, **kwargs)

        return guarded_save

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
    keras.Model.save = guarded(keras.Model.save)
    keras.saving.save_model = keras.models.save_model = guarded(keras.saving.save_model)
    keras.optimizers.Optimizer.apply = guarded_apply
