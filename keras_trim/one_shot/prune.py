"""The entry point of one-shot pruning."""

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_trim import batches, model_inputs
from keras_trim.annotations import decide
from keras_trim.arguments import check_model, counted, one_of, takes_named
from keras_trim.distributions import Allocation, distribute
from keras_trim.guard import warn_when_trained
from keras_trim.left_out import warn_of_left_out
from keras_trim.one_shot.calibration import Calibration, Job
from keras_trim.one_shot.steps import functional_of
from keras_trim.pattern_arguments import BlockSize, ZerosOfGroup, validate_pattern_arguments
from keras_trim.policies import PruningPolicy, candidates
from keras_trim.progress import Progress, check_verbose, progress
from keras_trim.pruning import make_request, nothing_to_prune
from keras_trim.schedules import ConstantSparsity, validate_sparsity

METHODS = ("reconstruct", "sparsegpt", "wanda", "magnitude")


@takes_named
def prune(
    model: keras.layers.Layer,
    sparsity: float | None = None,
    block_size: BlockSize = (1, 1),
    block_pooling_type: str = "AVG",
    pruning_policy: PruningPolicy | None = None,
    sparsity_m_by_n: ZerosOfGroup = None,
    *,
    calibration_data: Any = None,
    method: str | None = None,
    distribution: str | Mapping[str, float] | Allocation = "uniform",
    update_statistics: bool = True,
    batch_size: int = 32,
    verbose: str | bool = "auto",
) -> Any:
    """Prunes a trained model in one shot, without training and without labels.

    Pass a few hundred examples as `calibration_data`: the kept weights of each layer are then
    fitted to reproduce its outputs in the dense network. Without examples, the smallest weights are
    pruned, which can ruin the accuracy beyond 50 % sparsity. Frozen weights are pruned as well. If
    an error occurs, the model does not change.

    Examples guide the pruning of dense and einsum layers, of convolutions (including grouped,
    dilated and separable ones) and of the input kernels of recurrent layers. Recurrent kernels,
    embedding tables, transposed convolutions and the kernels of custom layers are pruned by
    magnitude, and a warning names them.

    Args:
        model: A built `keras.Model` or `keras.layers.Layer`. It is changed in place.
        sparsity: Float in `[0, 1)`. The fraction of zeros in each prunable weight. Weights that are
            zero already stay zero, so there may be more. `None` with `sparsity_m_by_n`, whose
            pattern alone decides, and with a `distribution` that has a sparsity for each weight.
        block_size: As in `prune_low_magnitude`, like the next three arguments.
            (`block_pooling_type` applies to magnitudes; with examples, a block's losses add up.)
        calibration_data: Inputs as for `model.predict`, without labels: an array, nested arrays, a
            dataset, a generator of batches (of tuples, the first element counts), or a function
            that returns one of these. All of it is used and held in memory; 256 to 1,024 examples
            are plenty.
        method: `"reconstruct"` (the default with `calibration_data`): chooses a mask by ADMM (ALPS,
            Meng et al., https://arxiv.org/abs/2406.07831) and the kept weights by least squares,
            both to match the dense network's outputs; then corrects the bias, or the mean of the
            batch normalization that follows. `"sparsegpt"` (Frantar and Alistarh,
            https://arxiv.org/abs/2301.00774), `"wanda"` (Sun et al.,
            https://arxiv.org/abs/2306.11695), or `"magnitude"` (the default without examples).
        distribution: `"uniform"`, `"erk"` (Evci et al., https://arxiv.org/abs/1911.11134),
            `"global"`, a dict of regular expressions to sparsities, or the result of
            `keras_trim.budget`; see `docs/one_shot.md`.
        update_statistics: Boolean. Whether to re-estimate the means and variances of batch
            normalization on `calibration_data` at the end.
        batch_size: Integer. Examples per run, if the data is arrays.
        verbose: `"auto"`, `True` or `False`. Whether to show progress if pruning takes longer than
            two seconds. `"auto"`: on a terminal and in a notebook.

    Returns:
        `model`.

    Raises:
        ValueError: if the model is not built, or nothing in it can be pruned; if the data does not
            fit the model, contains NaN, or does not reach a weight.
    """
    check_model(model, takes_layers=True)
    check_verbose(verbose)
    method = check_method(method, calibration_data)
    jobs = make_jobs(
        model,
        sparsity,
        (block_size, block_pooling_type, pruning_policy, sparsity_m_by_n),
        distribution,
    )
    data = [] if calibration_data is None else read_examples(model, calibration_data, batch_size)
    with progress("pruning", verbose=verbose if data else False) as work:
        calibration = run(model, jobs, method, data, update_statistics, work)
    calibration.assign()
    warn_when_trained([job.variable for job in jobs])
    return model


def check_method(method, data):
    """The method's name, checked; the default depends on whether there is data (not `None`)."""
    if method is None:
        method = "magnitude" if data is None else "reconstruct"
    one_of(method, METHODS, "method")
    if data is None and method != "magnitude":
        raise ValueError(
            f"The method '{method}' looks at examples: give some hundred inputs of the model as "
            f"`calibration_data`. Received: method={method!r}, calibration_data=None"
        )
    return method


def make_jobs(model, sparsity, pattern, distribution):
    """List of `Job`: the weights to prune, and how much."""
    block_size, pooling, policy, sparsity_m_by_n = pattern
    _, sparsity_m_by_n = validate_pattern_arguments(block_size, pooling, sparsity_m_by_n)
    if sparsity_m_by_n is not None:
        if distribution != "uniform":
            raise ValueError(
                "An N:M pattern has one sparsity: leave `distribution` out, or `sparsity_m_by_n`. "
                f"Received: distribution={distribution!r}, sparsity_m_by_n={sparsity_m_by_n}"
            )
        sparsity = _sparsity_of(sparsity_m_by_n, sparsity)
    if isinstance(distribution, str):
        validate_sparsity(sparsity, "sparsity")
    schedule = ConstantSparsity(0.0 if sparsity is None else sparsity, 0)
    request = make_request(schedule, block_size, pooling, policy, sparsity_m_by_n)
    if policy is not None and isinstance(model, keras.Model):
        policy.ensure_model_supports_pruning(model)
    decisions = decide(model, request)
    marked = [(variable, mark) for variable, mark in decisions if mark.spec is not None]
    if not marked:
        reasons = [mark.reason for _, mark in decisions]
        raise ValueError(nothing_to_prune(f"model={model.name}", reasons))
    marks = {id(variable): mark for variable, mark in decisions}
    found = candidates(model, policy)
    warn_of_left_out(found, lambda variable: marks[id(variable)], stacklevel=5)
    owners = {id(candidate.variable): candidate.layer for candidate in found}
    sparsities = distribute(
        distribution, sparsity, [variable for variable, _ in marked], f"{model.name}/"
    )
    return [
        Job(variable, mark.spec, own, owners[id(variable)])
        for (variable, mark), own in zip(marked, sparsities, strict=True)
        if own is not None
    ]


def _sparsity_of(sparsity_m_by_n, sparsity):
    """The sparsity of an N:M pattern; an error if the user asked for another one."""
    zeros, group = sparsity_m_by_n
    own = zeros / group
    if sparsity is not None:
        validate_sparsity(sparsity, "sparsity")
        if abs(sparsity - own) > 0.01:
            raise ValueError(
                f"An N:M pattern alone says how many weights are zero, here {own:.3g} of them: "
                f"leave `sparsity` out (`None`), or `sparsity_m_by_n`. Received: "
                f"sparsity={sparsity}, sparsity_m_by_n={sparsity_m_by_n}"
            )
    return own


def read_examples(model, data, batch_size, name="calibration_data"):
    """List of checked batches: structures of NumPy arrays without NaN.

    Args:
        model: Keras model or layer.
        data: Inputs as for `model.predict`.
        batch_size: Integer.
        name: String. The name of the caller's argument, for error messages.
    """
    cardinality = getattr(data, "cardinality", None)  # of a `tf.data.Dataset`
    if callable(cardinality) and int(cardinality()) == -1:
        raise ValueError(
            f"`{name}` is read to its end, and this dataset repeats forever: pass "
            f"`dataset.take(16)` for 16 batches of it. Received: {batches.describe(data)}"
        )
    with batches.naming(name):
        is_functional = functional_of(model) is not None
        structure, specs = model_inputs.signature(model) if is_functional else (None, None)
        read = list(batches.iterate(batches.calls(data, structure), batch_size, name=name))
        if is_functional:
            read = [
                keras.tree.pack_sequence_as(
                    structure, model_inputs.flatten(batch, structure, specs)
                )
                for batch in read
            ]
    for batch in read:
        for array in keras.tree.flatten(batch):
            if np.asarray(array).dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(
                    f"`{name}` has NaN or infinity: leave those examples out. Received: "
                    f"{np.count_nonzero(~np.isfinite(array))} such numbers in a batch of shape "
                    f"{np.shape(array)}"
                )
    return read


def run(model, jobs, method, data, update_statistics, work=None):
    """Prunes on examples, without changing the model yet.

    Args:
        model: Keras model or layer.
        jobs: List of `Job`.
        method: One of `METHODS`.
        data: List of batches; empty to prune by magnitude only.
        update_statistics: Boolean.
        work: `Progress` to advance, or `None`.

    Returns:
        `Calibration`; its `assign` changes the model.
    """
    calibration = Calibration(model, data, method)
    unreached = [job.variable.path for job in jobs if not calibration.is_reached(job.variable)]
    if data and method != "magnitude" and unreached:
        raise ValueError(
            "`calibration_data` never reaches some weights: give inputs with which the model calls "
            "their layers, or leave those out with a `pruning_policy`. Received: no call of "
            f"{', '.join(unreached[:4])}{' ...' if len(unreached) > 4 else ''}"
        )
    left = {id(job): calibration.why_not(job) for job in jobs}
    by_data = sorted((job for job in jobs if left[id(job)] is None), key=calibration.order)
    update_statistics = update_statistics and bool(data)
    num_statistics = len(calibration.statistics) if update_statistics else 0
    work = work or Progress("pruning")
    work.total = len(by_data) + num_statistics
    for job in jobs:
        if left[id(job)] is not None:
            calibration.prune_by_magnitude(job)
    for job in by_data:
        calibration.prune(job)
        work.advance()
    if update_statistics:
        calibration.update_statistics(work.advance)
    if method != "magnitude":
        _warn_of_magnitudes([(job, left[id(job)]) for job in jobs if left[id(job)] is not None])
    return calibration


def _warn_of_magnitudes(left):
    if left:
        named = [f"{job.variable.path} ({reason})" for job, reason in left]
        warnings.warn(
            counted(
                len(left),
                "{weights were|weight was} pruned by magnitude, not on `calibration_data`: ",
            )
            + f"{'; '.join(named[:4])}{' ...' if len(named) > 4 else ''}. "
            "If that costs accuracy, leave such weights out with a `pruning_policy` or a "
            "`distribution`.",
            stacklevel=5,
        )
