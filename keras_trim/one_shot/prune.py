"""The entry point of one-shot pruning."""

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from keras_trim.arguments import check_model, counted, one_of, takes_named
from keras_trim.distributions import Allocation
from keras_trim.finding import find_pruning_optimizers
from keras_trim.guard import warn_when_trained
from keras_trim.one_shot.budget import budget
from keras_trim.one_shot.calibration import Calibration
from keras_trim.one_shot.examples import read_examples
from keras_trim.one_shot.jobs import check_method, make_jobs
from keras_trim.one_shot.score import Score
from keras_trim.one_shot.sensitivity import SPARSITIES, measure
from keras_trim.pattern_arguments import BlockSize, ZerosOfGroup, validate_pattern_arguments
from keras_trim.policies import PruningPolicy
from keras_trim.progress import Progress, check_verbose, progress


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
    update_statistics: str | bool | None = None,
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
            `"global"`, `"sensitivity"`, a dict of regular expressions to sparsities, or the result
            of `keras_trim.budget`. `"sensitivity"` first measures on `calibration_data` how much
            each weight matters to the model's outputs, and gives those that matter less more of the
            zeros. That takes about ten times as long as pruning. See `docs/one_shot.md`.
        update_statistics: What happens at the end to the means and variances of batch
            normalization, if there is `calibration_data`. `"relative"` (the default for `"wanda"`
            and `"magnitude"`): they change by as much as pruning changed those of the examples, so
            they keep what they have from the training data. `False` (the default for the other
            methods, which fit the kept weights to the old statistics): they stay, except for the
            means that `"reconstruct"` corrects. `True`: those of the examples replace them, which
            also adapts the model to the examples.
        batch_size: Integer. Examples per run, if the data is arrays.
        verbose: `"auto"`, `True` or `False`. Whether to show progress if pruning takes longer than
            two seconds. `"auto"`: on a terminal and in a notebook.

    Returns:
        `model`.

    Raises:
        ValueError: if the model is not built, is still being pruned in training, or nothing in it
            can be pruned; if the data does not fit the model, contains NaN, or does not reach a
            weight.
    """
    check_model(model, takes_layers=True)
    _check_not_in_training(model)
    check_verbose(verbose)
    method = check_method(method, calibration_data)
    one_of(update_statistics, (None, "relative", True, False), "update_statistics")
    if update_statistics is None:
        update_statistics = "relative" if method in ("wanda", "magnitude") else False
    block_size, sparsity_m_by_n = validate_pattern_arguments(
        block_size, block_pooling_type, sparsity_m_by_n
    )
    pattern = block_size, block_pooling_type, pruning_policy, sparsity_m_by_n
    by_sensitivity = isinstance(distribution, str) and distribution == "sensitivity"
    if by_sensitivity and calibration_data is None:
        raise ValueError(
            "`distribution='sensitivity'` measures the weights on examples: pass a few hundred "
            "inputs of the model as `calibration_data`. Received: calibration_data=None"
        )
    jobs = make_jobs(model, sparsity, pattern, distribution)
    data = [] if calibration_data is None else read_examples(model, calibration_data, batch_size)
    if by_sensitivity:
        _check_reached(Calibration(model, data, method), jobs)  # measuring takes long
        jobs = _jobs_by_sensitivity(model, sparsity, pattern, data, method, verbose)
    with progress("pruning", verbose=verbose if data else False) as work:
        calibration = run(model, jobs, method, data, update_statistics, work)
    calibration.assign()
    warn_when_trained([job.variable for job in jobs])
    return model


def _check_not_in_training(model):
    """Raises if the masks of a training would undo what `prune` does."""
    if any(optimizer.built for optimizer in find_pruning_optimizers(model)):
        raise ValueError(
            "This model is still being pruned in training, whose masks have other zeros: call "
            "`keras_trim.strip_pruning(model)` first. To train on afterwards, mark it with "
            "`keras_trim.KeepZeros()`, and compile it again. "
            f"Received: model={model.name} with a PruningOptimizer"
        )


def _jobs_by_sensitivity(model, sparsity, pattern, data, method, verbose):
    """List of `Job`, with more zeros in weights that matter less to the outputs for `data`."""
    score = Score(model, data, None, None, data_name="calibration_data")
    sparsities = SPARSITIES
    if sparsity > 0.9:  # some weights need room above it
        sparsities = (*(s for s in SPARSITIES if s < sparsity), sparsity, (1 + sparsity) / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first `make_jobs` has told what stays dense
        table = measure(model, data, score, sparsities, method, pattern, verbose=verbose)
        return make_jobs(model, None, pattern, budget(table, zeros=sparsity))


def run(model, jobs, method, data, update_statistics, work=None):
    """Prunes on examples, without changing the model yet.

    Args:
        model: Keras model or layer.
        jobs: List of `Job`.
        method: One of `METHODS`.
        data: List of batches; empty to prune by magnitude only.
        update_statistics: `"relative"`, `True` or `False`.
        work: `Progress` to advance, or `None`.

    Returns:
        `Calibration`; its `assign` changes the model.
    """
    calibration = Calibration(model, data, method)
    if data:
        _check_reached(calibration, jobs)
    left = {id(job): calibration.why_not(job) for job in jobs}
    by_data = sorted((job for job in jobs if left[id(job)] is None), key=calibration.order)
    update_statistics = update_statistics if data else False
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
        calibration.update_statistics(update_statistics == "relative", work.advance)
    if method != "magnitude":
        _warn_of_magnitudes([(job, left[id(job)]) for job in jobs if left[id(job)] is not None])
    return calibration


def _check_reached(calibration, jobs):
    unreached = [job.variable.path for job in jobs if not calibration.is_reached(job.variable)]
    if unreached and calibration.method != "magnitude":
        raise ValueError(
            "`calibration_data` never reaches some weights: give inputs with which the model calls "
            "their layers, or leave those out with a `pruning_policy`. Received: no call of "
            f"{', '.join(unreached[:4])}{' ...' if len(unreached) > 4 else ''}"
        )


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
