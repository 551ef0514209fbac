"""The entry point: prune a trained model at once."""

import contextlib
import sys
import warnings

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from keras_trim import batches
from keras_trim.distributions import distribute
from keras_trim.left_out import warn_of_left_out
from keras_trim.marks import decide
from keras_trim.one_shot.calibration import Calibration, Job
from keras_trim.one_shot.steps import functional_of
from keras_trim.patterns import validate_pattern_arguments
from keras_trim.policies import candidates
from keras_trim.pruning import make_request, nothing_to_prune
from keras_trim.schedules import ConstantSparsity, validate_sparsity

METHODS = ("reconstruct", "sparsegpt", "wanda", "magnitude")


def prune(
    model,
    sparsity=None,
    block_size=(1, 1),
    block_pooling_type="AVG",
    pruning_policy=None,
    sparsity_m_by_n=None,
    *,
    calibration_data=None,
    method=None,
    distribution="uniform",
    update_statistics=True,
    batch_size=32,
    verbose="auto",
):
    """Prunes a trained model in one shot, without training and without labels.

    Give it a few hundred examples as `calibration_data`: then each layer is made to give what it
    gave in the dense network, as well as the weights that stay can. Without examples the smallest
    weights go, which costs most networks their accuracy beyond 50 %. Frozen weights are pruned
    as well. After an error the model is as it was.

    With examples, dense and einsum layers, convolutions (grouped, dilated and separable ones too)
    and the input kernels of recurrent layers are pruned on what reaches them. Recurrent kernels,
    embedding tables, transposed convolutions and the kernels of custom layers are pruned by
    magnitude, and a warning names them.

    Args:
        model: A built `keras.Model` or `keras.layers.Layer`. It is changed in place.
        sparsity: Float in `[0, 1)`. The fraction of zeros in each prunable weight. With
            `sparsity_m_by_n` the pattern alone decides and `None` may be given; with a
            `distribution` that has a sparsity for each weight, `None` must be.
        block_size: As in `prune_low_magnitude`, like the next three arguments.
            (`block_pooling_type` is for magnitudes; on examples, the losses in a block add up.)
        calibration_data: What `model.predict` takes, inputs without labels: an array, nested
            arrays, a dataset, a generator of tuples `(inputs,)`. All of it is used and held in
            memory: 256 to 1,024 examples are plenty.
        method: `"reconstruct"` (the default with `calibration_data`): a mask by ADMM (ALPS, Meng et
            al., https://arxiv.org/abs/2406.07831) and least squares for the weights that stay, both
            for the dense network's outputs; then the bias, or the mean of the batch normalization
            that follows, is corrected. `"sparsegpt"` (Frantar and Alistarh,
            https://arxiv.org/abs/2301.00774), `"wanda"` (Sun et al.,
            https://arxiv.org/abs/2306.11695), or `"magnitude"` (the default without).
        distribution: `"uniform"`, `"erk"`, `"global"`, a dict of regular expressions to sparsities
            or what `keras_trim.budget` returns; see `docs/one_shot.md`.
        update_statistics: Boolean. Whether the means and variances of batch normalization are
            estimated anew on `calibration_data`, at the end.
        batch_size: Integer. Examples that run at a time, of data that are arrays.
        verbose: `"auto"` (a progress bar on a terminal), `True` or `False`.

    Returns:
        `model`.

    Raises:
        ValueError: if the model is not built, or nothing in it can be pruned; for data that the
            model does not take, that have NaN, or that do not reach a weight.
    """
    if not isinstance(model, keras.layers.Layer) or not model.variables or not model.built:
        raise ValueError(
            "`model` must be a Keras model or layer that is built: call it on a batch first. "
            f"Received: model={model!r}"
        )
    method = check_method(method, calibration_data)
    jobs = make_jobs(
        model,
        sparsity,
        (block_size, block_pooling_type, pruning_policy, sparsity_m_by_n),
        distribution,
    )
    data = [] if calibration_data is None else read_examples(model, calibration_data, batch_size)
    with progress_bar(verbose if data else False) as bar:
        calibration = run(model, jobs, method, data, update_statistics, bar)
    calibration.assign()
    return model


def check_method(method, data):
    """The name of a method that can be had with data, or without (`None`)."""
    if method is None:
        method = "magnitude" if data is None else "reconstruct"
    if method not in METHODS:
        raise ValueError(
            f"`method` must be one of {', '.join(map(repr, METHODS))}. Received: method={method!r}"
        )
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
        if sparsity is None:
            sparsity = sparsity_m_by_n[0] / sparsity_m_by_n[1]
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
    warn_of_left_out(found, lambda variable: marks[id(variable)], stacklevel=4)
    owners = {id(candidate.variable): candidate.layer for candidate in found}
    sparsities = distribute(distribution, sparsity, [variable for variable, _ in marked])
    return [
        Job(variable, mark.spec, own, owners[id(variable)])
        for (variable, mark), own in zip(marked, sparsities, strict=True)
        if own is not None
    ]


def read_examples(model, data, batch_size, name="calibration_data"):
    """List of batches, checked: structures of NumPy arrays without NaN.

    Args:
        model: Keras model or layer.
        data: What `model.predict` takes.
        batch_size: Integer.
        name: String. What the caller's argument is called.
    """
    try:
        read = list(batches.iterate(data, batch_size))
        if functional_of(model) is not None:
            structure, specs = batches.signature(model)
            read = [
                keras.tree.pack_sequence_as(structure, batches.flatten(batch, structure, specs))
                for batch in read
            ]
    except ValueError as error:
        text = str(error).replace("`data`", f"`{name}`")
        if not text.startswith("`"):
            text = f"`{name}` must be inputs of the model, without labels. {text}"
        raise ValueError(text) from error
    for batch in read:
        for array in keras.tree.flatten(batch):
            if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(
                    f"`{name}` has NaN or infinity: leave those examples out. Received: "
                    f"{np.count_nonzero(~np.isfinite(array))} such numbers in a batch of shape "
                    f"{array.shape}"
                )
    return read


def run(model, jobs, method, data, update_statistics, bar=lambda total: lambda: None):
    """Prunes on examples, in values that the model does not have yet.

    Args:
        model: Keras model or layer; it is left as it is.
        jobs: List of `Job`.
        method: One of `METHODS`.
        data: List of batches; none for magnitudes alone.
        update_statistics: Boolean.
        bar: Function of how many steps there are, that returns one to call after each.

    Returns:
        `Calibration`; its `assign` gives the model the values.
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
    advance = bar(len(by_data) + num_statistics)
    for job in jobs:
        if left[id(job)] is not None:
            calibration.prune_by_magnitude(job)
    for job in by_data:
        calibration.prune(job)
        advance()
    if update_statistics:
        calibration.update_statistics(advance)
    if method != "magnitude":
        _warn_of_magnitudes([(job, left[id(job)]) for job in jobs if left[id(job)] is not None])
    return calibration


def _warn_of_magnitudes(left):
    if left:
        named = [f"{job.variable.path} ({reason})" for job, reason in left]
        warnings.warn(
            f"{len(left)} weights were pruned by magnitude, not on `calibration_data`: "
            f"{'; '.join(named[:4])}{' ...' if len(named) > 4 else ''}. Leave them out with a "
            "`pruning_policy` or a `distribution` if that costs accuracy.",
            stacklevel=4,
        )


@contextlib.contextmanager
def progress_bar(verbose):
    """Yields a function of how many steps there are, that returns one to call after each."""
    if verbose not in ("auto", True, False):
        raise ValueError(f"`verbose` must be 'auto', True or False. Received: verbose={verbose!r}")
    is_shown = sys.stderr.isatty() if verbose == "auto" else verbose
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(
        *columns, console=Console(file=sys.stderr), transient=True, disable=not is_shown
    ) as bar:

        def start(total):
            task = bar.add_task("pruning", total=total)
            return lambda: bar.advance(task)

        yield start
