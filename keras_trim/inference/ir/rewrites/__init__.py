"""Rewrites that simplify a graph."""

import dataclasses

from keras_trim.inference.ir.rewrites.driver import apply
from keras_trim.inference.ir.rewrites.fusion import RULES
from keras_trim.inference.ir.rewrites.permutations import cancel_permutations, drop_unused


def rewrite(graph):
    """An equivalent graph with fewer operations; does not change the given one."""
    graph = dataclasses.replace(graph, nodes=[dataclasses.replace(node) for node in graph.nodes])
    graph = cancel_permutations(drop_unused(graph))
    for rule in RULES:
        graph = apply(rule, graph)
    return graph
