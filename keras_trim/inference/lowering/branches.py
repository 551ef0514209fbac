"""Branches of a network: chains of layers that take the same tensor.

Threads share out the work of each layer (intra-op), with the first 1x1 convolutions fused, or they
share out the branches (inter-op). With inter-op threads, tensors between the layers of a branch
stay in the caches of one core, and only that core reads their weights.
"""

import dataclasses
import math

from keras_trim.inference.ir.operations import Pool
from keras_trim.inference.kernels.instructions import MOST_TASKS
from keras_trim.inference.lowering.autotuning import select
from keras_trim.inference.lowering.chains import chains, is_linkable, links_of
from keras_trim.inference.lowering.horizontal_fusion import lower_fused, siblings
from keras_trim.inference.lowering.layer_tiling import lower_chain
from keras_trim.inference.lowering.registry import lower_node
from keras_trim.inference.program.tensors import Tensor, view_of

_LEAST_WORK = 1 << 20  # products; fewer are done before threads could share them out
_POOL = 2  # products that take as long as one pixel of a pooling window
_SHARED = 1.15  # slowdown when threads share out a layer, over each computing whole layers
_WORTH = 0.99  # of the estimated intra-op time; inter-op must take less to be worth measuring
_MOST_REST = 8  # layers at the ends of branches that threads compute together


@dataclasses.dataclass
class BranchGroup:
    """Chains that take the same value, and the chains that follow from these alone.

    Args:
        chains: List of lists of node numbers, in execution order.
        branches: List of lists of node numbers, in execution order.
        users: Dictionary, value -> numbers of the nodes that take it; None stands for an output.
    """

    chains: list
    branches: list
    users: dict


def branch_groups(graph):
    """Splits a graph into `BranchGroup`s, in execution order. Most have a single chain."""
    found, done, heads, users, branchable = [], set(), {}, {}, set()
    for number, node in enumerate(graph.nodes):
        for value in node.inputs:
            users.setdefault(value, []).append(number)
    for value in graph.outputs:
        users.setdefault(value, []).append(None)
    all_chains = chains(graph)
    for chain in all_chains:
        nodes = [graph.nodes[number] for number in chain]
        if all(is_linkable(node) and len(node.inputs) == 1 for node in nodes):
            heads.setdefault(nodes[0].inputs[0], []).append(chain)
            branchable.add(chain[0])
    for chain in all_chains:
        if chain[0] in done:
            continue
        branches = [[chain]]
        if chain[0] in branchable:
            together = heads[graph.nodes[chain[0]].inputs[0]]
            if len(together) > 1:
                branches = [_branch(head, graph, heads) for head in together]
        members = sorted((c for branch in branches for c in branch), key=lambda c: c[-1])
        numbers = [sorted(number for c in branch for number in c) for branch in branches]
        found.append(BranchGroup(members, numbers, users))
        done.update(c[0] for c in members)
    return found


def _branch(chain, graph, heads):
    """Returns a chain and all chains that follow from it."""
    branch = [chain]
    for chain in branch:
        branch += heads.get(graph.nodes[chain[-1]].outputs[0], [])
    return branch


def lower_branches(builder, group, graph, values):
    """Appends the instructions of branches, in the faster of two ways.

    Args:
        builder: `Builder`.
        group: `BranchGroup`.
        graph: `graph.Graph`.
        values: Dictionary, value -> `Tensor`, to which the nodes' outputs are added.
    """
    links = _links(group, graph, values) if len(group.branches) > 1 else {}
    shares, rest = _shares(group.branches, links, min(builder.num_threads, MOST_TASKS))
    if not shares:
        _lower_intra_op(builder, links, group, graph, values)
        return
    source = graph.nodes[group.chains[0][0]].inputs[0]

    def emit(candidate, builder):
        made = dict(values)
        if candidate == "inter-op":
            _lower_inter_op(builder, shares, rest, group, graph, made)
        else:
            _lower_intra_op(builder, links, group, graph, made)
        return made

    workload = tuple(tuple(links[n].workload for n in branch) for branch in group.branches)
    candidates, workload = ["intra-op", "inter-op"], ("branches", workload)
    _, made = select(builder, candidates, emit, workload, values[source])
    values.update(made)


def _links(group, graph, values):
    """Maps node numbers to their links; empty if values are not images with a batch size of 1."""
    values, links = dict(values), {}
    for chain in group.chains:
        found = links_of([(number, graph.nodes[number]) for number in chain], values)
        if not found:
            return {}
        links.update(zip(chain, found, strict=True))
        values[found[-1].node.outputs[0]] = Tensor(found[-1].out_shape, "NCHW")
    return links


def _shares(branches, links, num_threads):
    """Chooses which nodes each thread computes alone, and which all threads then compute together.

    Returns:
        `(shares, rest)`: a list of node numbers per thread that has any, and a list of node
        numbers. There are no shares if inter-op threads are not worth measuring.
    """
    work = {number: _work(link) for number, link in links.items()}
    total = sum(work.values())
    if num_threads < 2 or not links or total < _LEAST_WORK:
        return [], []
    branches, rest, tried = [list(branch) for branch in branches], [], []
    while any(branches) and len(rest) <= _MOST_REST:
        # Largest first, each to the thread with the least load (Graham, "Bounds on multiprocessing
        # timing anomalies", 1969).
        shares, loads = [[] for _ in range(num_threads)], [0] * num_threads
        for branch in sorted(branches, key=lambda branch: -sum(work[n] for n in branch)):
            least = loads.index(min(loads))
            shares[least] += branch
            loads[least] += sum(work[n] for n in branch)
        time = max(loads) + _SHARED * sum(work[n] for n in rest) / num_threads
        tried.append((time, [share for share in shares if share], sorted(rest)))
        # Next, try to let all threads compute the last node of the busiest one.
        busiest = set(shares[loads.index(max(loads))])
        branch = max((b for b in branches if b and b[0] in busiest), key=lambda b: work[b[-1]])
        rest.append(branch.pop())
    time, shares, rest = min(tried, key=lambda one: one[0])
    is_worth = len(shares) > 1 and time < _WORTH * _SHARED * total / num_threads
    return (shares, rest) if is_worth else ([], [])


def _work(link):
    """Estimates how long a layer takes, in products with weights."""
    if isinstance(link.node.operation, Pool):
        return _POOL * math.prod((*link.out_shape, *link.node.operation.window))
    return link.num_products


def _lower_intra_op(builder, links, group, graph, values):
    """Appends the instructions of all chains, whose layers threads share out."""
    joined = set()
    for numbers in siblings(builder, links, group, graph):
        lower_fused(builder, numbers, graph, values)
        joined.update(numbers)
    for chain in group.chains:
        nodes = [(number, graph.nodes[number]) for number in chain if number not in joined]
        if nodes:
            lower_chain(builder, nodes, values)


def _lower_inter_op(builder, shares, rest, group, graph, values):
    """Appends one instruction for the shares of all threads, and the instructions of the rest."""
    source = graph.nodes[group.chains[0][0]].inputs[0]
    threads = []
    for share in shares:
        alone, own = builder.alone(builder.tuner), {source: view_of(values[source])}
        for number in share:
            lower_node(alone, number, graph.nodes[number], own)
        inside = set(share)
        for number in share:
            (value,) = graph.nodes[number].outputs
            if not inside.issuperset(group.users.get(value, [])):  # needed outside of the task
                values[value] = Tensor(own[value].shape, own[value].layout)
                own[value].lie_in(values[value], 0)
        threads.append(alone)
    builder.node = group.chains[0][0]
    builder.emit_tasks(threads)
    for thread, alone in enumerate(threads):
        builder.shapes.update(alone.shapes)
        for number, labels in alone.labels.items():
            builder.node = number
            for label in labels:
                builder.label(f"{label}; by thread {thread + 1}")
    for number in rest:
        lower_node(builder, number, graph.nodes[number], values)
