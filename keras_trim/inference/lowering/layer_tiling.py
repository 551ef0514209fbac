"""Layer tiling: computes several layers at a time, on one band of the image after another.

For a large image, the tensor between two layers does not fit a cache: it is written to memory and
read again. So a chain of layers is computed for one band of the last layer's rows at a time.
Intermediate values are in memory that the bands share and that stays in a cache. Rows that two
bands need are computed twice (Alwani et al., "Fused-layer CNN accelerators", MICRO 2016). A thread
computes whole bands, so intermediate values stay on one core.
"""

import itertools
import math

import numpy as np

from keras_trim.inference.kernels.instructions import COPY, MOST_TASKS
from keras_trim.inference.kernels.llvm import LANES, LINE
from keras_trim.inference.lowering.autotuning import select
from keras_trim.inference.lowering.chains import links_of
from keras_trim.inference.lowering.registry import lower_node, lower_operation
from keras_trim.inference.lowering.tuner import RepeatingTuner
from keras_trim.inference.program.tensors import Band, Tensor, round_up

# Limits on what is worth measuring. With one thread, less than this stays in a cache anyway.
_LARGE = 400 * 1024  # bytes between two layers
_LEAST_BYTES = 0.05  # between layers, per product with a non-zero weight
_BYTES_PER_WEIGHT = 8  # value and place of a non-zero weight; each band reads all of them
_MOST_TWICE = 0.25  # of the work may be computed twice
_CACHES = (512 * 1024, 1024 * 1024)  # bytes that a layer of a band may read and write
_UNEVEN = 1.2  # rows of the largest band over the mean, to make bands whole cache lines


def lower_chain(builder, nodes, values):
    """Appends the instructions of a chain of nodes, each of which takes the previous one's output.

    Args:
        builder: `Builder`.
        nodes: List of pairs: the number of a node, the node.
        values: Dictionary, value -> `Tensor`, to which the nodes' outputs are added.
    """
    links = links_of(nodes, values) if len(nodes) > 1 else []
    if not links:
        for number, node in nodes:
            lower_node(builder, number, node, values)
    for group in _groups(links):
        _lower_group(builder, group, values)


def _groups(links):
    """Splits a chain where the tensor between two layers is small.

    It does not split if the second layer also takes the input of the group: a band of that is in a
    cache.
    """
    groups, sizes = [], []
    for link in links:
        size = math.prod(link.out_shape)
        is_narrow = sizes and size > sizes[-1] and 2 * sizes[-1] <= max(sizes)
        if not sizes or (is_narrow and groups[-1][0].node.inputs[0] not in link.node.inputs):
            groups.append([])
            sizes = [math.prod(link.shape)]
        groups[-1].append(link)
        sizes.append(size)
    return groups


def may_take_bands(links, num_threads):
    """Whether bands are measured for the first layer of a chain."""
    return bool(links) and bool(_band_counts(_groups(links)[0], num_threads))


def _parts(links):
    """Splits a group before each window, so that bands compute nothing twice."""
    parts = []
    for link in links:
        if not parts or link.has_window:
            parts.append([])
        parts[-1].append(link)
    return parts


def _lower_group(builder, links, values):
    """Appends the instructions of a group of layers, with the fastest number of bands."""
    counts = _band_counts(links, builder.num_threads)
    if not counts:
        _lower_parts(builder, links, values)
        return
    source = links[0].node.inputs[0]
    for link in links:
        for other in link.node.inputs[1:]:
            values[other] = builder.to_nchw(values[other])

    def emit(count, builder):
        made = dict(values)
        if count == 1:
            _lower_parts(builder, links, made)
        else:
            _lower_bands(builder, links, made, count)
        return made

    workload = ("tiling", *(link.workload for link in links))
    _, made = select(builder, [1, *counts], emit, workload, values[source])
    values.update(made)


def _lower_parts(builder, links, values):
    """Appends the instructions of each part of a group, or of each layer if it has one part."""
    parts = _parts(links)
    if len(parts) > 1:
        for part in parts:
            _lower_group(builder, part, values)
    else:
        for link in links:
            lower_node(builder, link.number, link.node, values)


def _lower_bands(builder, links, values, count):
    """Appends one instruction that computes all layers of a group in `count` bands."""
    y = Tensor(links[-1].out_shape, "NCHW")
    builder.require_memory(y.size)
    ranges, bands = _bands(links[-1], count), {}
    tuner = RepeatingTuner(builder.tuner)
    for first, last in sorted(ranges, key=lambda rows: rows[0] - rows[1]):  # largest first
        tuner.restart()
        bands[first] = _band(builder.alone(tuner), links, values, y, first, last)
    builder.node = links[0].number
    builder.emit_tasks([bands[first] for first, _ in ranges])
    labels = next(iter(bands.values())).labels
    for link in links:
        builder.node = link.number
        builder.shapes[link.number] = (link.shape, link.out_shape)
        for label in labels.get(link.number, []):
            builder.label(f"{label}; {len(bands)} bands")
    values[links[-1].node.outputs[0]] = y


def _band(band, links, values, y, first, last):
    """Appends the instructions for some rows of the last layer's output; returns the builder."""
    ranges = [(first, last)]
    for link in links[:0:-1]:
        ranges.append(link.reads(*ranges[-1])[:2])
    # Kernels write whole vectors, which must not reach into the next band or plane.
    begins, ends = first * y.shape[2] % LANES == 0, last * y.shape[2] % LANES == 0
    is_whole = begins and (ends or last == y.shape[1])
    x = values[links[0].node.inputs[0]]
    x = band.other_layout(x) or x
    for link, rows in zip(links, ranges[::-1], strict=True):
        operation, *source = link.rows(*rows)
        if link is links[0]:
            x = Band(x, *source)
        band.node = link.number
        is_direct = link is links[-1] and is_whole
        others = [Band(values[other], *rows) for other in link.node.inputs[1:]]
        if not is_direct:  # planes of a residual must be as far apart as those of the output
            others = [_copied(band, other, Tensor(other.shape, "NCHW")) for other in others]
        x = lower_operation(
            operation, band, x, *others, out=Band(y, first, last) if is_direct else None
        )
    if not is_whole:  # the output for a few pixels is NHWC
        _copied(band, band.to_nchw(x), Band(y, first, last))
    return band


def _copied(builder, x, y):
    """Emits a copy of planes from x to y, where they are another distance apart; returns y."""
    builder.emit(
        COPY, x=x, y=y, batch=1, x_sample=0, y_sample=0, rows=x.channels, columns=x.pixels,
        x_row=x.plane, y_row=y.plane,
    )  # fmt: skip
    return y


def _bands(link, count):
    """Splits the rows of the output into ranges that are as even as possible."""
    _, height, width, _ = link.out_shape
    # Ranges of whole cache lines, if even enough, so that no two threads write to the same line.
    for unit in (LINE // math.gcd(LINE, width), 1):
        units = -(-height // unit)
        ends = [min(units * i // count * unit, height) for i in range(count + 1)]
        sizes = np.diff(ends)
        if min(sizes) > 0 and max(sizes) <= _UNEVEN * height / count:
            break
    return list(itertools.pairwise(ends))


def _band_counts(links, num_threads):
    """Lists the numbers of bands that are worth measuring."""
    if len(links) < 2:
        return []
    between = [4 * math.prod(link.out_shape) for link in links[:-1]]
    weights = _BYTES_PER_WEIGHT * sum(link.num_kept for link in links)
    products = sum(link.num_products for link in links)
    if (
        max(between) < max(weights, _LARGE if num_threads == 1 else 0)
        or sum(between) < _LEAST_BYTES * products
    ):
        return []
    sizes = [4 * math.prod(links[0].shape), *between, 4 * math.prod(links[-1].out_shape)]
    largest = max(a + b for a, b in itertools.pairwise(sizes))
    per_cache = {round_up(round_up(largest, cache) // cache, num_threads) for cache in _CACHES}
    return sorted(count for count in per_cache if count > 1 and _is_possible(links, count))


def _is_possible(links, count):
    """Whether a group can run in `count` bands without computing too much twice."""
    if count > min(MOST_TASKS, links[-1].out_shape[1]):
        return False
    computed = 0
    for rows in _bands(links[-1], count):
        for link in links[::-1]:
            computed += (rows[1] - rows[0]) * math.prod(link.out_shape[2:])
            rows = link.reads(*rows)[:2]
            if rows[0] >= rows[1]:  # it reads nothing but padding
                return False
    return computed <= (1 + _MOST_TWICE) * sum(math.prod(link.out_shape) for link in links)
