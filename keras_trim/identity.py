"""Which variable of a program is which variable of a file: by path and shape, never by position.

The same variable may have two paths. A model that is loaded builds its layers one by one, so their
paths lack what stood in front (`sequential/dense/kernel`, `dense/kernel`). And Keras numbers the
layers that a program does not name (`dense`, `dense_1`), so those of a class that is instantiated
twice have other numbers. So paths match if one is the end of the other; and among variables that
only such numbers tell apart, all in their order, if as many of them are there on both sides.
"""

import collections
import re

_AUTOMATIC_NUMBER = re.compile(r"_\d+$")


def match(saved, present):
    """Finds the variables that were saved among those that are present.

    Args:
        saved: List of tuples (path, shape).
        present: List of tuples (path, shape).

    Returns:
        List: for each in `saved` its index in `present`, or `None`.
    """
    matched = [None] * len(saved)
    present_families = _families(present)
    for family_, members in _families(saved).items():
        others = present_families.get(family_, [])
        pairs = _match_by_name(
            {i: saved[i][0] for i in members}, {j: present[j][0] for j in others}
        )
        if len(pairs) < len(members) == len(others):
            pairs = dict(zip(members, others, strict=True))
        for i, j in pairs.items():
            matched[i] = j
    return matched


def family(path, shape):
    """What variables have in common that only numbers chosen by Keras may tell apart."""
    return tuple(_AUTOMATIC_NUMBER.sub("", name) for name in path.split("/")[-2:]), tuple(shape)


def identify(variables):
    """List of tuples (path, shape), from a list of variables."""
    return [(variable.path, tuple(variable.shape)) for variable in variables]


def describe(identities, limit=4):
    """A few variables, for an error message."""
    shown = ", ".join(f"{path} {tuple(shape)}" for path, shape in identities[:limit])
    return f"{shown}{', ...' if identities[limit:] else ''}" if identities else "none"


def _match_by_name(saved, present):
    """Dict: index -> index, of two dicts: index -> path. Equal paths first, then ends of them."""
    pairs = {}
    for is_same in (str.__eq__, _is_end):
        for i in saved.keys() - pairs.keys():
            candidates = [
                j for j in present if j not in pairs.values() and is_same(saved[i], present[j])
            ]
            if len(candidates) == 1:
                pairs[i] = candidates[0]
    return pairs


def _is_end(path, other):
    shorter, longer = sorted((path, other), key=len)
    return longer.endswith(f"/{shorter}")


def _families(identities):
    families = collections.defaultdict(list)
    for i, identity in enumerate(identities):
        families[family(*identity)].append(i)
    return families
