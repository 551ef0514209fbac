"""Applies rules to a graph.

A rule matches two nodes, where only the second one reads the output of the first. It has

- a pattern: the classes of the two operations;
- a condition: its function returns None if it does not apply;
- a replacement: one operation in place of both, or one for each of them.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rewrite of two nodes in a row.

    Args:
        first, second: Class of operations, or tuple of classes.
        replace: Function `(first, second, user) -> replacement`, of operations. `user` is the only
            operation that reads the output of the second, or None. The replacement is an operation
            that takes the inputs of the first, then the other inputs of the second; a pair of
            operations; or None.
        place: String. Where a single replacement goes: in place of the "first" node, if all of its
            inputs are known there, or of the "second".
    """

    first: object
    second: object
    replace: object
    place: str = "first"


def rule(first, second, place="first"):
    """Decorator that makes a `Rule` of a function."""
    return lambda replace: Rule(first, second, replace, place)


def apply(rule, graph):
    """The graph after one pass of a rule over its nodes, in order."""
    return _Pass(graph).run(rule)


class _Pass:
    def __init__(self, graph):
        self.graph = graph
        self.producers, self.users = graph.producers(), graph.uses()
        self.order = {id(node): number for number, node in enumerate(graph.nodes)}
        self.removed = set()  # ids of nodes
        self.renamed = {}  # value -> the value that replaces it

    def run(self, rule):
        for second in self.graph.nodes:
            if isinstance(second.operation, rule.second):
                self._rewrite(rule, second)
        nodes = [node for node in self.graph.nodes if id(node) not in self.removed]
        outputs = [self.renamed.get(value, value) for value in self.graph.outputs]
        return dataclasses.replace(self.graph, nodes=nodes, outputs=outputs)

    def _only_user(self, value):
        users = self.users.get(value, [])
        return users[0] if len(users) == 1 else None

    def _rewrite(self, rule, second):
        """Rewrites a node with one that it reads from, trying the latest first."""
        before = [self.producers.get(value) for value in second.inputs]
        before = [node for node in before if node and isinstance(node.operation, rule.first)]
        for first in sorted(before, key=lambda node: -self.order[id(node)]):
            (value, *more) = first.outputs
            if more or self._only_user(value) is not second:
                continue
            user = self._only_user(second.outputs[0])
            known = user and user.operation
            replacement = rule.replace(first.operation, second.operation, known)
            if isinstance(replacement, tuple):
                first.operation, second.operation = replacement
                first.name, second.name = second.name, first.name
                return
            if replacement is not None and self._merge(rule, first, second, replacement):
                return

    def _merge(self, rule, first, second, operation):
        """Replaces two nodes by one; returns False if an input is not known there yet."""
        others = [value for value in second.inputs if value != first.outputs[0]]
        stays, goes = (first, second) if rule.place == "first" else (second, first)
        if stays is first and any(self._is_after(value, first) for value in others):
            return False
        inputs = [*first.inputs, *others]
        for value in inputs:
            self.users[value] = [stays if user is goes else user for user in self.users[value]]
        stays.operation, stays.inputs = operation, inputs
        self.removed.add(id(goes))
        if stays is first:
            self._rename(second.outputs[0], first.outputs[0])
        return True

    def _is_after(self, value, node):
        """Whether a value is known only after a node."""
        producer = self.producers.get(value)
        return producer is not None and self.order[id(producer)] >= self.order[id(node)]

    def _rename(self, value, other):
        """Makes the users of a value read another value."""
        users = self.users.pop(value, [])
        self.users[other] = users
        for user in users:
            if user is not None:
                user.inputs = [other if known == value else known for known in user.inputs]
        self.renamed[value] = other
