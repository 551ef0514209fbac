"""The annotation that `prune_low_magnitude` leaves on each weight: how to prune it.

A mark is an attribute of the Keras variable, so any optimizer that gets the variables finds it,
whatever the model looks like. Layers without weights wait in a registry until they have some.
"""

import dataclasses
import weakref

import keras
import numpy as np

from keras_trim.arguments import counted
from keras_trim.kinds import is_table
from keras_trim.left_out import warn_of_left_out
from keras_trim.patterns import make_pattern
from keras_trim.policies import PruningPolicy, candidates
from keras_trim.schedules import PruningSchedule
from keras_trim.specs import PruningSpec

_ATTRIBUTE = "_keras_trim_mark"


@dataclasses.dataclass(frozen=True)
class Annotation:
    """An annotation on a variable: its spec, or why it has none, and the call that decided it."""

    spec: PruningSpec | None
    reason: str | None
    root: keras.layers.Layer | None = None
    request: "Request | None" = None


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of one `prune_low_magnitude` call, applied once weights exist."""

    schedule: PruningSchedule
    block_size: tuple = (1, 1)
    block_pooling_type: str = "AVG"
    sparsity_m_by_n: tuple | None = None
    policy: PruningPolicy | None = None

    def spec(self, candidate):
        """Returns the `PruningSpec` of a prunable candidate, or a string: why it gets none."""
        variable, layer = candidate.variable, candidate.layer
        shape, view = tuple(variable.shape), candidate.view
        if self.sparsity_m_by_n is not None:
            zeros, group = self.sparsity_m_by_n
            kept = group - zeros
            inputs = view.shape(shape)[1]
            if is_table(layer, variable):
                return "an N:M pattern follows the axis a product sums over; a table has none"
            if inputs <= kept:
                return f"{inputs} input channels: {kept}:{group} keeps them all"
        if np.prod(shape, dtype=np.int64) >= 2**31:
            raise ValueError(
                "A weight that is pruned must have fewer than 2**31 elements: split it, or leave "
                f"its layer out with a `pruning_policy`. Received: '{variable.path}' of shape "
                f"{shape}"
            )
        pattern = make_pattern(
            shape,
            view,
            self.block_size,
            self.block_pooling_type,
            self.sparsity_m_by_n,
            path=variable.path,
        )
        return PruningSpec(self.schedule, pattern)


_pending = weakref.WeakKeyDictionary()  # layer -> Request, while weights are missing
_stripped = weakref.WeakKeyDictionary()  # layer -> list of the requests that waited when it was
_annotated = weakref.WeakValueDictionary()  # id -> variable, for each that has an annotation
_changes = 0


def get_annotation(variable):
    """The `Annotation` of a variable, or `None`."""
    return getattr(variable, _ATTRIBUTE, None)


def get_spec(variable):
    """The `PruningSpec` of a variable, or `None`."""
    mark = get_annotation(variable)
    return None if mark is None else mark.spec


def set_spec(variable, spec):
    """Marks a single variable, unless it already has this spec."""
    if get_spec(variable) is not spec:
        _annotate(variable, Annotation(spec, None))


def _annotate(variable, annotation):
    setattr(variable, _ATTRIBUTE, annotation)
    _annotated[id(variable)] = variable
    _count_change()


def _count_change():
    global _changes
    _changes += 1


def changes():
    """Integer that grows whenever a mark is set or taken off anywhere."""
    return _changes


def mark(root, request):
    """Marks a layer or model: the weights it has now, and later ones when they are needed.

    Returns:
        List of the variables that are marked for pruning, or `None` while unbuilt.
    """
    _pending[root] = request
    _count_change()
    return _resolve(root) if root.built else None


def is_built(root):
    """Whether a layer or model and everything in it has its weights."""
    return all(layer.built for layer in root._flatten_layers())


def resolve_pending():
    """Marks weights that were created after their layers were marked."""
    for root in list(_pending):
        _resolve(root, is_late=True)


def _resolve(root, is_late=False):
    request = _pending.pop(root)  # so an error is raised once, not at every training step
    inside = {id(layer) for layer in root._flatten_layers(include_self=False)}
    marked, fresh, stripped = [], set(), _stripped_variables(root, request)
    for variable, mark in decide(root, request):
        existing = get_annotation(variable)
        is_done = existing is not None and existing.request is request
        if is_done or (existing is not None and id(existing.root) in inside):
            mark = existing  # the layer was marked on its own: the innermost mark counts
        elif id(variable) in stripped:
            mark = _stripped_annotation(root, request)
            _annotate(variable, mark)
        else:
            _annotate(variable, mark)
            fresh.add(id(variable))
        if mark.spec is not None:
            marked.append(variable)
    if not is_built(root):
        _pending[root] = request
    if is_late:  # `prune_low_magnitude` could not report these yet
        found = candidates(root, request.policy)
        warn_of_left_out([c for c in found if id(c.variable) in fresh], get_annotation)
    return marked


def _stripped_annotation(root, request):
    return Annotation(None, "its mark was taken off by strip_pruning", root, request)


def _stripped_variables(root, request):
    """Set of `id`s: the variables of layers that were stripped while this request waited."""
    layers = root._flatten_layers(include_self=False)
    stripped = [
        layer for layer in layers if any(each is request for each in _stripped.get(layer, ()))
    ]
    return {id(variable) for layer in stripped for variable in layer.variables}


def decide(root, request):
    """Decides for each weight of a layer or model which `Annotation` a request gives it.

    Returns:
        List of tuples (variable, `Annotation`).

    Raises:
        ValueError: if the pattern is impossible for a weight.
    """
    decisions = []
    for candidate in candidates(root, request.policy):
        decision = candidate.reason or request.spec(candidate)
        spec, reason = (None, decision) if isinstance(decision, str) else (decision, None)
        decisions.append((candidate.variable, Annotation(spec, reason, root, request)))
    return decisions


def marked_variables(root):
    """Lists the variables of a layer or model that are marked for pruning."""
    resolve_pending()
    return [variable for variable in root.variables if get_spec(variable) is not None]


def all_marked_variables():
    """Lists the variables of any layer or model that are marked for pruning."""
    resolve_pending()
    return [variable for variable in _annotated.values() if get_spec(variable) is not None]


def check_marks(weights, marked, cure):
    """Raises an error if what is being pruned is no longer what is marked.

    Args:
        weights: List of `PrunedWeight`: what is being pruned, and how.
        marked: List of variables that are marked now and must be among them.
        cure: String. What to do, such as "call `model.compile()` again".

    Raises:
        ValueError: if a weight has another mark, or none, or if a marked variable is not pruned.
    """
    pruned = {id(weight.variable) for weight in weights}
    changed = [variable.path for variable in marked if id(variable) not in pruned]
    changed += [w.variable.path for w in weights if get_spec(w.variable) is not w.spec]
    if changed:
        raise ValueError(
            "What is marked for pruning has changed since pruning began, but training would still "
            f"prune the old selection: {cure}. Received: "
            + counted(len(changed), "{weights|weight}, ")
            + f"{', '.join(changed[:4])}"
            f"{' ...' if changed[4:] else ''}"
        )


def is_to_be_pruned(root):
    """Whether training must prune a layer or model: it has trainable marks, or will have some."""
    marked = marked_variables(root)
    if any(variable.trainable for variable in marked):
        return True
    return not marked and any(layer in _pending for layer in root._flatten_layers())


def unmark(root):
    """Removes all marks from a layer or model, also those that something around it was given."""
    layers = list(root._flatten_layers())
    for layer in layers:
        _pending.pop(layer, None)
    waiting = list(_pending.values())
    if waiting:
        _stripped.update(dict.fromkeys(layers, waiting))
    inside = {id(layer) for layer in layers}
    for variable in root.variables:
        mark = get_annotation(variable)
        if mark is None:
            continue
        if mark.root is None or id(mark.root) in inside:
            delattr(variable, _ATTRIBUTE)
        else:
            _annotate(variable, _stripped_annotation(mark.root, mark.request))
    _count_change()
