"""Matches the variables of a file with those of a program, by path and shape, never by position.

The same variable may have different paths, for two reasons. A loaded model builds its layers one by
one, so their paths lack the prefix (`sequential/dense/kernel` becomes `dense/kernel`). And Keras
numbers layers without a name (`dense`, `dense_1`), so the numbers grow if a class is instantiated
again. So two paths match if one is the end of the other. Variables that differ only in such numbers
match in order, if both sides have equally many of them.
"""

import collections
import itertools
import re

_AUTOMATIC_NUMBER = re.compile(r"_\d+$")


def match(saved, present):
    """Finds the saved variables among those that are present.

    Args:
        saved: List of tuples (path, shape).
        present: List of tuples (path, shape).

    Returns:
        List: for each item of `saved`, its index in `present`, or `None`.
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
    """A key shared by variables that may only differ in numbers chosen by Keras."""
    return tuple(_AUTOMATIC_NUMBER.sub("", name) for name in path.split("/")[-2:]), tuple(shape)


def numbered(name, taken):
    """Returns `name`, or `name#2`, `name#3`, ...: the first that is not in `taken`."""
    others = (f"{name}#{i}" for i in itertools.count(2))
    return next(each for each in itertools.chain([name], others) if each not in taken)


def identify(variables):
    """List of tuples (path, shape) for a list of variables."""
    return [(variable.path, tuple(variable.shape)) for variable in variables]


def describe(identities, limit=4):
    """Lists a few variables, for an error message."""
    shown = ", ".join(f"{path} {tuple(shape)}" for path, shape in identities[:limit])
    return f"{shown}{', ...' if identities[limit:] else ''}" if identities else "none"


def _match_by_name(saved, present):
    """Matches by equal paths first, then by ends of paths.

    Args:
        saved: Dict: index -> path.
        present: Dict: index -> path.

    Returns:
        Dict: index in `saved` -> index in `present`.
    """
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
