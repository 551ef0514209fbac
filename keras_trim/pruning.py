"""The entry points of training: mark a model for pruning, and remove the marks."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from keras_trim import guard
from keras_trim.annotations import (
    Request,
    decide,
    get_annotation,
    get_spec,
    is_built,
    mark,
    marked_variables,
    unmark,
)
from keras_trim.arguments import check_model, counted, described, takes_named
from keras_trim.attachment import detach
from keras_trim.finding import find_pruning_optimizers
from keras_trim.kinds import is_table
from keras_trim.left_out import warn_of_left_out
from keras_trim.pattern_arguments import BlockSize, ZerosOfGroup, validate_pattern_arguments
from keras_trim.policies import PruningPolicy, candidates
from keras_trim.report import warn_of_missed_targets
from keras_trim.schedules import ConstantSparsity, PolynomialDecay, PruningSchedule


@takes_named
def prune_low_magnitude(
    to_prune: Any,
    pruning_schedule: PruningSchedule = ConstantSparsity(0.5, 0),  # noqa: B008 (immutable in use)
    block_size: BlockSize = (1, 1),
    block_pooling_type: str = "AVG",
    pruning_policy: PruningPolicy | None = None,
    sparsity_m_by_n: ZerosOfGroup = None,
) -> Any:
    """Marks a model, a layer or a list of layers to be pruned by magnitude while it trains.

    This clones and wraps nothing: it returns the same object, and the optimizer that trains it
    prunes its weights. Pass `keras_trim.UpdatePruningStep()` to `fit`, or use
    `keras_trim.PruningOptimizer` in your own loop. It prunes kernels, recurrent and pointwise
    kernels and embedding tables of rank 2 or more, including those of custom layers, and unnamed
    weights of custom layers that have the shape of a matrix. `keras_trim.sparsity_report` lists
    what is pruned and why the rest is not. A warning names layers that stay dense as a whole if you
    may not expect that.

    Layers inside a model that were marked on their own keep their own settings. Marking the same
    object again replaces its settings.

    Args:
        to_prune: A `keras.Model` of any kind, a `keras.layers.Layer`, or a list of layers. It may
            be unbuilt.
        pruning_schedule: A `PruningSchedule`.
        block_size: Tuple of two integers, (input channels, output channels), or one integer for
            both. Prunes whole blocks of that size. `(1, 1)` (default) prunes single weights.
        block_pooling_type: `"AVG"` or `"MAX"`: how to pool the magnitudes in a block.
        pruning_policy: A `PruningPolicy` that chooses layers.
        sparsity_m_by_n: Tuple of integers (m, n): m zeros in every n consecutive input channels, so
            `(2, 4)` for the 2:4 pattern. Or a string in hardware vendors' notation: `"2:4"` keeps
            two of four. The pattern is complete at the schedule's final sparsity.

    Returns:
        `to_prune`.

    Raises:
        ValueError: if `to_prune` is not a model, layer or list of layers, or is being pruned
            already; if the schedule or the policy is not one; if a pattern is impossible; if
            nothing in a model can be pruned (for layers, a warning).
    """
    request = make_request(
        pruning_schedule, block_size, block_pooling_type, pruning_policy, sparsity_m_by_n
    )
    is_list = isinstance(to_prune, (list, tuple))
    if is_list and not to_prune:
        raise ValueError("`to_prune` must hold at least one layer. Received: to_prune=[]")
    for layer in to_prune if is_list else [to_prune]:
        check_model(layer, "to_prune", takes_layers=True, must_be_built=False)
    guard.install()
    layers = list(to_prune) if is_list else [to_prune]
    for layer in layers:  # find all errors before marking anything
        _check_markable(layer, request)
    for layer in layers:
        mark(layer, request)
    _tell(layers, request, is_list)
    return to_prune


def make_request(pruning_schedule, block_size, block_pooling_type, pruning_policy, sparsity_m_by_n):
    """Checks the arguments and returns them as a `Request`."""
    if not isinstance(pruning_schedule, PruningSchedule):
        raise ValueError(
            "`pruning_schedule` must be an instance of a `keras_trim.PruningSchedule`, such as "
            f"{_example_schedule(pruning_schedule)}. "
            f"Received: pruning_schedule={described(pruning_schedule)}"
        )
    if pruning_policy is not None and not isinstance(pruning_policy, PruningPolicy):
        name = getattr(pruning_policy, "__name__", "PruneForLatencyOnXNNPack")
        raise ValueError(
            "`pruning_policy` must be an instance of a `keras_trim.PruningPolicy`, such as "
            f"`{name}()`. Received: pruning_policy={described(pruning_policy)}"
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


def _example_schedule(value):
    """What was probably meant."""
    is_share = isinstance(value, (int, float)) and 0 <= value < 1
    if value is PolynomialDecay:
        return "`PolynomialDecay.for_epochs(0.8, epochs=10, data=x)`"
    return f"`ConstantSparsity({value if is_share else 0.8}, begin_step=0)`"


def _check_markable(layer, request):
    if request.policy is not None and isinstance(layer, keras.Model):
        request.policy.ensure_model_supports_pruning(layer)
    if any(optimizer.built for optimizer in find_pruning_optimizers(layer)):
        raise ValueError(
            "This model is being pruned already. Call `keras_trim.strip_pruning(model)` before you "
            f"mark it again. Received: to_prune={layer.name} with a PruningOptimizer"
        )
    if layer.built:
        decide(layer, request)


def _tell(layers, request, is_list):
    """Reports what will not be pruned in marked layers: an error if that is a whole model."""
    found = [c for layer in layers if layer.built for c in candidates(layer, request.policy)]
    if not found:  # none is built, or they have no weights, like Dropout
        return
    pruned = [c for c in found if get_spec(c.variable) is not None]
    if not pruned and all(is_built(layer) for layer in layers):
        reasons = [get_annotation(candidate.variable).reason for candidate in found]
        for layer in layers:
            unmark(layer)
        if not is_list and isinstance(layers[0], keras.Model):
            raise ValueError(nothing_to_prune(f"to_prune={layers[0].name}", reasons))
        names = [layer.name for layer in layers]
        received = names[0] if len(names) == 1 else f"{names[:4]}{'...' if names[4:] else ''}"
        warnings.warn(nothing_to_prune(f"to_prune={received}", reasons), stacklevel=4)
        return
    warn_of_left_out(found, get_annotation, stacklevel=4)
    _warn_of_frozen(pruned)


def nothing_to_prune(name, reasons):
    return (
        "Nothing in it can be pruned: no weight is a kernel or an embedding table that the policy "
        f"and the pattern allow. Received: {name}, whose weights are left out because: "
        f"{'; '.join(sorted({reason for reason in reasons if reason}))}"
    )


def _warn_of_frozen(pruned):
    # Frozen embedding tables hold vectors that were learned elsewhere and should stay.
    frozen = {
        candidate.variable.path: None
        for candidate in pruned
        if not candidate.variable.trainable and not is_table(candidate.layer, candidate.variable)
    }
    if frozen:
        names = list(frozen)
        warnings.warn(
            counted(
                len(names),
                "{weights that are|weight that is} marked for pruning {are|is} frozen and will "
                "stay as {they are|it is}: ",
            )
            + f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''}. Set "
            "`layer.trainable = True` before compiling, mark other layers, or prune them in one "
            "shot with `keras_trim.prune`.",
            stacklevel=5,
        )


def strip_pruning(model: Any) -> Any:
    """Removes pruning: leaves a plain Keras model with a plain optimizer and its sparse weights.

    Zeros are then ordinary weights: further training makes them nonzero again, of which `fit` warns
    in this process. `prune_low_magnitude(model, KeepZeros())` trains with the same zeros.

    Args:
        model: The `keras.Model` that was marked by `prune_low_magnitude`; or a layer, if no model
            that contains it has been trained since (otherwise compile that model again).

    Returns:
        The same object. A saved model loads without keras-trim.

    Raises:
        ValueError: if it is not a model or layer.
    """
    check_model(model, takes_layers=True, must_be_built=False)
    warn_of_missed_targets(model, "Pruning was stripped")
    pruned = marked_variables(model)
    detach(model)
    unmark(model)
    guard.warn_when_trained(pruned)
    return model


@contextlib.contextmanager
def prune_scope() -> Iterator[None]:
    """Does nothing: models saved during pruning load without a scope.

    It exists so that code written for TFMOT runs.
    """
    yield
