"""The entry points of training: mark a model for pruning, take the marks off."""

import contextlib
import warnings

import keras

from keras_trim import guard
from keras_trim.attachment import detach
from keras_trim.marks import Request, decide, is_built, mark, unmark
from keras_trim.patterns import validate_pattern_arguments
from keras_trim.policies import PruningPolicy
from keras_trim.report import warn_of_missed_targets
from keras_trim.schedules import ConstantSparsity, PruningSchedule


def prune_low_magnitude(
    to_prune,
    pruning_schedule=ConstantSparsity(0.5, 0),  # noqa: B008 (it is immutable in use)
    block_size=(1, 1),
    block_pooling_type="AVG",
    pruning_policy=None,
    sparsity_m_by_n=None,
):
    """Marks a model, a layer or a list of layers to be pruned by magnitude while it trains.

    Nothing is cloned or wrapped: the same object comes back, and its weights are pruned by the
    optimizer that trains it. Pass `keras_trim.UpdatePruningStep()` to `fit`, or use
    `keras_trim.PruningOptimizer` in your own loop. Kernels, recurrent and pointwise kernels and
    embedding tables of rank 2 and more are pruned, those of custom layers too;
    `keras_trim.sparsity_report` tells what is and why the rest is not.

    Layers inside a model that are marked on their own keep their own settings. Marking the same
    object again replaces what was said before.

    Args:
        to_prune: A `keras.Model` of any kind, a `keras.layers.Layer`, or a list of layers. It need
            not be built.
        pruning_schedule: A `PruningSchedule`.
        block_size: Tuple of two integers, (input channels, output channels). Whole blocks of that
            size are pruned. `(1, 1)` (default) prunes single weights.
        block_pooling_type: `"AVG"` or `"MAX"`: how the magnitudes in a block are pooled.
        pruning_policy: A `PruningPolicy`, to choose layers.
        sparsity_m_by_n: Tuple of integers (m, n): m zeros in every n consecutive input channels,
            so `(2, 4)` for the 2:4 pattern. It is complete at the schedule's final sparsity.

    Returns:
        `to_prune`.

    Raises:
        ValueError: for anything else than a model, layer or list of layers; for impossible
            patterns; if nothing in it can be pruned.
    """
    request = make_request(
        pruning_schedule, block_size, block_pooling_type, pruning_policy, sparsity_m_by_n
    )
    is_list = isinstance(to_prune, (list, tuple))
    if is_list and not to_prune:
        raise ValueError("`to_prune` is a list of no layers. Received: to_prune=[]")
    for layer in to_prune if is_list else [to_prune]:
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                "`prune_low_magnitude` takes a `keras.Model`, a `keras.layers.Layer` or a list of "
                "layers, of Keras 3 (not `tf_keras`). "
                f"Received: {layer!r} of type {type(layer).__module__}.{type(layer).__name__}"
            )
    guard.install()
    for layer in to_prune if is_list else [to_prune]:
        _mark(layer, request)
    return to_prune


def make_request(pruning_schedule, block_size, block_pooling_type, pruning_policy, sparsity_m_by_n):
    """A `Request` of arguments that have been checked."""
    if not isinstance(pruning_schedule, PruningSchedule):
        raise ValueError(
            "`pruning_schedule` must be a `keras_trim.PruningSchedule`, such as "
            f"`ConstantSparsity(0.8, 0)`. Received: pruning_schedule={pruning_schedule!r}"
        )
    if pruning_policy is not None and not isinstance(pruning_policy, PruningPolicy):
        raise ValueError(
            "`pruning_policy` must be an instance of a `keras_trim.PruningPolicy`. "
            f"Received: pruning_policy={pruning_policy!r}"
        )
    block_size, sparsity_m_by_n = validate_pattern_arguments(
        block_size, block_pooling_type, sparsity_m_by_n
    )
    starts_from_zeros = getattr(pruning_schedule, "starts_from_zeros", False)
    if starts_from_zeros and (sparsity_m_by_n or tuple(block_size) != (1, 1)):
        raise ValueError(
            "`KeepZeros` keeps whatever zeros there are, in blocks and patterns too: leave "
            "`block_size` and `sparsity_m_by_n` out. Received: "
            f"block_size={block_size}, sparsity_m_by_n={sparsity_m_by_n}"
        )
    if sparsity_m_by_n and getattr(pruning_schedule, "final_sparsity", None) is None:
        raise ValueError(
            "An N:M pattern is complete at the schedule's final sparsity: give the schedule an "
            f"attribute `final_sparsity`. Received: pruning_schedule={pruning_schedule!r}"
        )
    return Request(
        pruning_schedule, block_size, block_pooling_type, sparsity_m_by_n, pruning_policy
    )


def nothing_to_prune(name, decisions):
    reasons = sorted({mark.reason for _, mark in decisions if mark.reason})
    return (
        "Nothing in it can be pruned: no weight is a kernel or an embedding table that the policy "
        f"and the pattern allow. Received: {name}, whose weights are left out because: "
        f"{'; '.join(reasons)}"
    )


def _mark(layer, request):
    if request.policy is not None and isinstance(layer, keras.Model):
        request.policy.ensure_model_supports_pruning(layer)
    attached = guard.find_pruning_optimizer(getattr(layer, "optimizer", None))
    if attached is not None and attached.built:
        raise ValueError(
            "This model is being pruned already. Call `keras_trim.strip_pruning(model)` before you "
            f"mark it anew. Received: to_prune={layer.name} with a PruningOptimizer"
        )
    variables = mark(layer, request)
    if variables is None:  # not built yet
        return
    if not variables and layer.variables and is_built(layer):
        unmark(layer)
        message = nothing_to_prune(f"to_prune={layer.name}", decide(layer, request))
        if isinstance(layer, keras.Model):
            raise ValueError(message)
        warnings.warn(message, stacklevel=3)
    frozen = [variable.path for variable in variables if not variable.trainable]
    if frozen:
        warnings.warn(
            f"{len(frozen)} weights that are marked for pruning are frozen and will stay as they "
            f"are: {', '.join(frozen[:4])}{' ...' if len(frozen) > 4 else ''}. Set "
            "`layer.trainable = True` before compiling, mark other layers, or prune them in one "
            "shot with `keras_trim.prune`.",
            stacklevel=3,
        )


def strip_pruning(model):
    """Leaves a plain Keras model with a plain optimizer, its weights sparse as they are.

    Zeros are weights like all others then: training on makes them non-zero again.

    Args:
        model: The `keras.Model` that was marked by `prune_low_magnitude`; or a layer, if no model
            with it has been trained since (compile that one again otherwise).

    Returns:
        The same object. Saved, it loads without keras-trim.

    Raises:
        ValueError: for anything that is no model or layer.
    """
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(
            "`strip_pruning` takes a `keras.Model` or `keras.layers.Layer`. "
            f"Received: {model!r} of type {type(model).__name__}"
        )
    warn_of_missed_targets(model, "Pruning was stripped")
    detach(model)
    unmark(model)
    return model


@contextlib.contextmanager
def prune_scope():
    """Does nothing but be there: models saved while being pruned load without a scope.

    Kept so that code written for TFMOT runs.
    """
    yield
