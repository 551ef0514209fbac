"""Saves and loads a `PruningOptimizer`'s state in Keras's files, matching variables by path.

    contents       JSON: paths and shapes of the pruned weights and the inner optimizer's variables
    pruned_steps   integers, in the order of the pruned weights: updates up to that step are done
    mask_<i>       the mask of the i-th pruned weight, eight weights per byte (`numpy.packbits`)
    inner_<i>      the i-th variable of the inner optimizer

Files of version 0.1 hold one array per optimizer variable, under its position.
"""

import json
import math
import warnings

import numpy as np

from keras_trim.arguments import counted
from keras_trim.hosts import to_numpy
from keras_trim.identity import describe, identify, match
from keras_trim.schedule_groups import NEVER


def save_state(optimizer, store):
    """Writes the state of a built `PruningOptimizer` into a store of Keras's savers."""
    weights, inner = optimizer.pruned_weights, _distinct(optimizer.inner_optimizer.variables)
    contents = {
        "weights": identify([weight.variable for weight in weights]),
        "inner": _identify_inner(optimizer, inner),
    }
    store["contents"] = np.frombuffer(json.dumps(contents).encode(), "uint8")
    if optimizer.pruned_steps is not None:
        store["pruned_steps"] = to_numpy(optimizer.pruned_steps)
    for i, weight in enumerate(weights):
        store[f"mask_{i}"] = np.packbits(to_numpy(weight.mask).reshape(-1))
    for i, variable in enumerate(inner):
        store[f"inner_{i}"] = to_numpy(variable)


def load_state(optimizer, store):
    """Inverts `save_state`, for a built optimizer.

    Raises:
        ValueError: if the file has no mask for a weight that the optimizer prunes, or if shapes
            differ. Nothing is changed then.
    """
    if "contents" not in store.keys():  # noqa: SIM118 (Keras's stores are no dicts)
        _load_positions(optimizer, store)
        return
    contents = json.loads(np.asarray(store["contents"], "uint8").tobytes().decode())
    new = _match_masks(optimizer, contents["weights"], store)
    new += _match_inner(optimizer, contents["inner"], store)
    for variable, value in new:
        variable.assign(value)


def _match_masks(optimizer, saved, store):
    """List of tuples (variable, value): masks and the steps at which they were made."""
    weights = optimizer.pruned_weights
    present = identify([weight.variable for weight in weights])
    saved = [(path, tuple(shape)) for path, shape in saved]
    places = {j: i for i, j in enumerate(match(saved, present)) if j is not None}
    missing = [identity for j, identity in enumerate(present) if j not in places]
    if missing:
        unused = [identity for i, identity in enumerate(saved) if i not in places.values()]
        raise ValueError(
            "The file has no masks for "
            + counted(len(missing), "{weights|weight} that this optimizer prunes: ")
            + f"{describe(missing)}. Mark the weights that were marked when it was saved, or load "
            "it with `compile=False` (or into a model without a `PruningOptimizer`) and mark that. "
            f"Received: masks of other weights in the file: {describe(unused)}"
        )
    if not weights:
        return []
    steps = np.asarray(store["pruned_steps"])[[places[j] for j in range(len(present))]]
    new = [(optimizer.pruned_steps, steps)]
    for j, (_, shape) in enumerate(present):
        bits = np.unpackbits(np.asarray(store[f"mask_{places[j]}"]), count=math.prod(shape))
        new.append((weights[j].mask, bits.reshape(shape).astype(bool)))
    return new


def _match_inner(optimizer, saved, store):
    """List of tuples (variable, value) for the inner optimizer. Warns of unmatched variables."""
    variables = _distinct(optimizer.inner_optimizer.variables)
    present = _identify_inner(optimizer, variables)
    places = match([(path, tuple(shape)) for path, shape in saved], present)
    fresh = [identity for j, identity in enumerate(present) if j not in places]
    dropped = [identity for i, identity in enumerate(saved) if places[i] is None]
    if fresh or dropped:
        warnings.warn(
            f"The state of the optimizer '{optimizer.inner_optimizer.name}' is restored in part: "
            + counted(
                len(fresh), "of its variables {are|is} not in the file and {start|starts} afresh "
            )
            + f"({describe(fresh)}), "
            + counted(len(dropped), "of the file {are|is} not in this optimizer and left out ")
            + f"({describe(dropped)}). This is expected if layers were frozen, unfrozen "
            "or added since, or if you chose another optimizer.",
            stacklevel=4,
        )
    return [(variables[j], store[f"inner_{i}"]) for i, j in enumerate(places) if j is not None]


def _load_positions(optimizer, store):
    own = [*optimizer._variables[:2], *(weight.mask for weight in optimizer.pruned_weights)]
    variables = own + optimizer.inner_optimizer.variables
    if len(store.keys()) != len(variables):
        warnings.warn(
            f"Skipping variable loading for optimizer '{optimizer.name}': the file holds "
            f"{len(store.keys())} variables of another optimizer, or of one that had not been "
            "built. Masks and momenta start afresh.",
            stacklevel=4,
        )
        return
    for i, variable in enumerate(variables):
        variable.assign(store[str(i)])
    if optimizer.pruned_steps is not None:
        step = int(to_numpy(optimizer.iterations)) or NEVER
        optimizer.pruned_steps.assign(np.full(optimizer.pruned_steps.shape, step, "int32"))


def _identify_inner(optimizer, variables):
    """List of tuples (path, shape). A momentum of `dense/kernel` is `dense/kernel:momentum`.

    Keras's name for it, `adam/dense_kernel_momentum`, does not show where the weight's name ends.
    """
    references = {v.path.replace("/", "_"): v.path for v in optimizer._trainable_variables}
    identities = []
    for variable in variables:
        name = variable.path.split("/")[-1]
        ends = [i for i, letter in enumerate(name) if letter == "_"]
        known = [end for end in ends if name[:end] in references]
        path = variable.path
        if known:
            path = f"{references[name[: known[-1]]]}:{name[known[-1] + 1 :]}"
        identities.append((path, tuple(variable.shape)))
    return identities


def _distinct(variables):
    return list({id(variable): variable for variable in variables}.values())
