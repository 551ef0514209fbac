"""Raises an error if a model that is marked for pruning would be trained without it.

In Keras, a layer cannot control which optimizer trains it. So the first mark in a process adds a
check to two methods of Keras: `Model.make_train_function`, with which `fit` and `train_on_batch`
start, and `Optimizer.apply`, which every other loop with a Keras optimizer calls. Both raise before
any weight moves. `Model.save` and `keras.saving.save_model` warn of files that would not load, or
would not be pruned further. The first `fit` of pruned weights without marks warns that zeros go.
"""

import contextlib
import functools
import math
import sys
import threading
import warnings

import keras

from keras_trim import torch_optimizers
from keras_trim.annotations import check_marks, get_spec, marked_variables, resolve_pending
from keras_trim.arguments import counted
from keras_trim.counting import count_zeros
from keras_trim.finding import find_pruning_optimizer, find_pruning_optimizers

_MESSAGE = (
    "This model is marked for pruning, but nothing would prune it. Pass "
    "`callbacks=[keras_trim.UpdatePruningStep()]` to `fit()`, compile it with "
    "`keras_trim.PruningOptimizer(...)` around your optimizer, or, in your own training loop, call "
    "that optimizer's `apply`. `keras_trim.strip_pruning(model)` takes the marks off. "
    "Received: optimizer={}"
)
# A few zeros may be chance. A pruned weight has more than this share.
_FEW_ZEROS = 0.01
_PRUNED = "_keras_trim_pruned"  # an attribute of variables, like the marks
_state = threading.local()


def warn_when_trained(variables):
    """Makes `fit` warn, once, if it would make the zeros of these weights nonzero.

    Args:
        variables: List of Keras variables that were pruned and carry no marks any more.
    """
    install()
    for variable in variables:
        setattr(variable, _PRUNED, True)


def _warn_of_lost_zeros(model):
    pruned = [variable for variable in model.trainable_variables if hasattr(variable, _PRUNED)]
    for variable in pruned:
        delattr(variable, _PRUNED)
    unmarked = [variable for variable in pruned if get_spec(variable) is None]
    counts = zip(unmarked, count_zeros(unmarked), strict=True)
    lost = [v.path for v, zeros in counts if zeros > _FEW_ZEROS * math.prod(v.shape)]
    if lost:
        warnings.warn(
            counted(
                len(lost),
                "{weights were|weight was} pruned, and training makes {their|its} zeros nonzero: ",
            )
            + f"{', '.join(lost[:4])}{' ...' if lost[4:] else ''}. To train with the same zeros, "
            "call `keras_trim.prune_low_magnitude(model, keras_trim.KeepZeros())` and compile "
            "again before `fit`.",
            stacklevel=5,
        )


def replace_function(function, new):
    """Replaces a function of Keras wherever Keras has imported it, also for its own use.

    `keras.models`, `tf.keras.models` and `keras.wrappers` each have a `clone_model`, for example.
    The module that defines it keeps it: a function may call itself.
    """
    for name, module in list(sys.modules.items()):
        is_of_keras = name.startswith("keras.") and name != function.__module__
        names = getattr(module, "__dict__", {})  # `None` stands for a module that is not to load
        if is_of_keras and names.get(function.__name__) is function:
            setattr(module, function.__name__, new)


@contextlib.contextmanager
def pruning():
    """Within this context, the wrapped optimizer may move marked weights."""
    before = getattr(_state, "pruning", False)
    _state.pruning = True
    try:
        yield
    finally:
        _state.pruning = before


def _check_optimizer(model):
    """Raises `ValueError` unless the model's optimizers prune exactly the marked weights."""
    marked = [variable for variable in marked_variables(model) if variable.trainable]
    # A custom `train_step` may use optimizers that cannot be seen. Then only `apply` can tell.
    is_default = type(model).train_step is keras.Model.train_step
    if is_default:
        optimizers = [find_pruning_optimizer(getattr(model, "optimizer", None))]
    else:
        optimizers = find_pruning_optimizers(model)
    if optimizers == [None]:
        if marked:
            name = type(getattr(model, "optimizer", None)).__name__
            raise ValueError(_MESSAGE.format(name))
        return
    if optimizers and all(optimizer.built for optimizer in optimizers):
        weights = [weight for optimizer in optimizers for weight in optimizer.pruned_weights]
        check_marks(weights, marked, "call `model.compile()` again")


def _warn_before_saving(model, path):
    """Warns if a saved file would not load again as it is."""
    optimizers = find_pruning_optimizers(model)
    there = {id(variable) for variable in model.variables}
    weights = [weight for optimizer in optimizers for weight in optimizer.pruned_weights]
    gone = [weight.variable.path for weight in weights if id(weight.variable) not in there]
    if gone:
        warnings.warn(
            counted(
                len(gone), "{weights|weight} that this model's optimizer prunes {are|is} not in it "
            )
            + "any more, so the file will only load with `compile=False`: "
            f"{', '.join(gone[:4])}"
            f"{' ...' if gone[4:] else ''}. Was it quantized, or its layers replaced? Call "
            "`keras_trim.strip_pruning(model)` before you save.",
            stacklevel=3,
        )
    if path.endswith((".h5", ".hdf5")) and (optimizers or marked_variables(model)):
        warnings.warn(
            "Whole models in `.h5` keep neither masks nor what is marked for pruning: the file "
            "will load as a plain model, with `compile=False`. Save as `.keras`, or call "
            f"`keras_trim.strip_pruning(model)` first. Received: filepath={path}",
            stacklevel=3,
        )


def install():
    """Installs the checks, once per process."""
    if getattr(keras.Model.make_train_function, "_keras_trim_guard", False):
        return
    torch_optimizers.install()
    make_train_function = keras.Model.make_train_function
    apply = keras.optimizers.Optimizer.apply

    @functools.wraps(make_train_function)
    def guarded_make_train_function(model, *args, **kwargs):
        _check_optimizer(model)
        _warn_of_lost_zeros(model)
        if model.train_function is None:
            for optimizer in find_pruning_optimizers(model):
                optimizer.update_due_masks()
        return make_train_function(model, *args, **kwargs)

    def guarded(save):
        @functools.wraps(save)
        def guarded_save(model, filepath, *args, include_optimizer=True, **kwargs):
            if isinstance(model, keras.Model) and include_optimizer:
                _warn_before_saving(model, str(filepath))
            if not include_optimizer:
                kwargs["include_optimizer"] = False
            return save(model, filepath, *args, **kwargs)

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
    replace_function(keras.saving.save_model, guarded(keras.saving.save_model))
    keras.optimizers.Optimizer.apply = guarded_apply
