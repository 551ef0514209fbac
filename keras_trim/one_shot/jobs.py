"""Which weights to prune, and how much."""

import keras

from keras_trim.annotations import decide
from keras_trim.arguments import described, one_of
from keras_trim.distributions import distribute
from keras_trim.left_out import warn_of_left_out
from keras_trim.one_shot.calibration import Job
from keras_trim.policies import candidates
from keras_trim.pruning import make_request, nothing_to_prune
from keras_trim.schedules import ConstantSparsity, validate_sparsity

METHODS = ("reconstruct", "sparsegpt", "wanda", "magnitude")


def check_method(method, data):
    """The method's name, checked; the default depends on whether there is data (not `None`)."""
    if method is None:
        method = "magnitude" if data is None else "reconstruct"
    one_of(method, METHODS, "method")
    if data is None and method != "magnitude":
        raise ValueError(
            f"The method '{method}' needs examples: pass a few hundred inputs of the model as "
            f"`calibration_data`. Received: method={method!r}, calibration_data=None"
        )
    return method


def make_jobs(model, sparsity, pattern, distribution):
    """List of `Job`: the weights to prune, and how much.

    Args:
        model: Keras model or layer.
        sparsity: As in `prune`, like `distribution`. Before sensitivities are measured,
            `"sensitivity"` is the same as `"uniform"`.
        pattern: Tuple: block size, pooling, policy and N:M pattern, checked already.
    """
    block_size, pooling, policy, sparsity_m_by_n = pattern
    name = distribution if isinstance(distribution, str) else None
    if sparsity_m_by_n is not None:
        if name != "uniform":
            raise ValueError(
                "An N:M pattern has one sparsity: leave `distribution` out, or `sparsity_m_by_n`. "
                f"Received: distribution={described(distribution)}, "
                f"sparsity_m_by_n={sparsity_m_by_n}"
            )
        sparsity = _sparsity_of(sparsity_m_by_n, sparsity)
    if name is not None:
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
    if name == "sensitivity":
        distribution = "uniform"
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
                f"An N:M pattern determines the sparsity, here {own:.3g}: leave `sparsity` out "
                f"(`None`), or `sparsity_m_by_n`. Received: "
                f"sparsity={sparsity}, sparsity_m_by_n={sparsity_m_by_n}"
            )
    return own
