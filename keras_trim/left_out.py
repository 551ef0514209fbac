"""Warns of layers that stay dense although they may well have matrices."""

import math
import warnings

from keras_trim.kinds import is_table

_MAX_NAMES = 4


def warn_of_left_out(candidates, annotation_of, stacklevel=2):
    """Warns, once for all of them, of layers that stay dense, maybe against the user's intention.

    These are layers without any pruned weight that have at least one weight that would be pruned if
    its name told that it is a matrix, or if the pattern fitted its shape. Weights left out by
    design (such as depthwise kernels), by a policy or by `get_prunable_weights` only appear in
    `sparsity_report`.

    Args:
        candidates: List of `Candidate`.
        annotation_of: Function from a variable to its `Annotation`, or `None`.
        stacklevel: Integer. As in `warnings.warn`, counted from the caller.
    """
    layers = {}
    for candidate in candidates:
        layers.setdefault(id(candidate.layer), []).append(candidate)
    names, sizes = {}, {}
    for own in layers.values():
        marks = [annotation_of(candidate.variable) for candidate in own]
        if any(mark is not None and mark.spec is not None for mark in marks):
            continue
        for candidate, mark in zip(own, marks, strict=True):
            if mark is not None and _may_surprise(candidate):
                layer, size = candidate.layer, math.prod(candidate.variable.shape)
                names.setdefault(mark.reason, {})[id(layer)] = layer.path or layer.name
                sizes[mark.reason] = sizes.get(mark.reason, 0) + size
    if names:
        told = [
            f"{_listed(list(layers.values()))} ({sizes[reason]:,} weights): {reason}"
            for reason, layers in names.items()
        ]
        warnings.warn(
            "Some layers are not pruned at all. "
            f"{'. '.join(told)}. `keras_trim.sparsity_report(model)` lists every weight; a "
            "`pruning_policy` that excludes these layers silences this warning.",
            stacklevel=stacklevel + 1,
        )


def _may_surprise(candidate):
    if candidate.is_in_doubt:
        return True
    # The rule would prune it, but the pattern cannot. N:M patterns are meaningless for tables.
    return candidate.reason is None and not is_table(candidate.layer, candidate.variable)


def _listed(names):
    """Returns `Layer 'a'`, or `12 layers, 'a', 'b', 'c', 'd' ...`."""
    shown = ", ".join(f"'{name}'" for name in names[:_MAX_NAMES])
    if len(names) == 1:
        return f"Layer {shown}"
    return f"{len(names)} layers, {shown}{' ...' if names[_MAX_NAMES:] else ''}"
