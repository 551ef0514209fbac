"""Which variant of a kernel is the fastest for a layer: measured, on this machine."""

import dataclasses
import functools
import itertools
import math
import time

from keras_trim.inference.choices import Choices
from keras_trim.inference.execution import Execution
from keras_trim.inference.kernels.register_tile import ROW_GROUPS, WIDEST_GROUP
from keras_trim.inference.kernels.vector import LANES
from keras_trim.inference.plan import Builder
from keras_trim.inference.tensors import Tensor, round_up

_KIB = 1024
_DENSE_CACHE = 24 * _KIB  # bytes of first-level cache for activations
# The same for sparse rows, by the vectors of pixels: with less of it, sums are loaded and stored
# more often. First-level caches have 32 to 128 KiB.
_SPARSE_CACHES = {8: (24 * _KIB, 56 * _KIB), 6: (48 * _KIB,), 4: (24 * _KIB, 48 * _KIB)}
_TURNS, _LEAST_TURNS = 20, 2
_MOST_TURNS = 60  # where several threads run, which is less steady
_BEHIND, _CLOSELY_BEHIND = 1.3, 1.1  # times the fastest
_ALIKE = 1.05  # times as long, where the other way takes more threads
_OTHERS = 1 << 20  # floats, more than the caches of a core hold
_MOST_BYTES = 1 << 28  # of weights, of the variants that are in one race
_STACKED_CACHES = (24 * _KIB, 40 * _KIB)  # bytes of first-level cache, as above
_MOST_STACKED = 8  # lines
_LEAST_FULL = 0.85  # part of the vectors of stacked lines that are pixels
_IN_BLOCKS = 0.75  # how full blocks of rows must be to be worth measuring
_ALWAYS_SPARSE, _ALWAYS_DENSE = 0.3, 0.8  # densities beyond which only one kind is tried


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a product is computed.

    Args:
        tile: Integer. Rows that share their columns in a register tile, zeros within it
            multiplied; 1 where each has its own.
        blocks: Integer. The parts that the reduction is split into.
        vectors: Integer. Vectors of pixels per pass over the weights.
        is_packed: Boolean. Activations are first copied to one place, aligned.
        is_stacked: Boolean. The vectors are of as many lines of the image, one below the other, so
            that taps of a window that lie below each other share most of what is copied.
    """

    tile: int
    blocks: int
    vectors: int
    is_packed: bool = False
    is_stacked: bool = False

    @property
    def is_dense(self):
        return self.tile == ROW_GROUPS[0]

    def __str__(self):
        kind = "dense" if self.is_dense else "sparse"
        kind = kind if self.is_dense or self.tile == 1 else f"tiles of {self.tile} rows"
        blocks = f", {self.blocks} blocks" if self.blocks > 1 else ""
        if self.is_stacked:
            return f"{kind}, {LANES} pixels of {self.vectors} lines{blocks}"
        packed = ", packed" if self.is_packed else ""
        return f"{kind}, {self.vectors * LANES} pixels{blocks}{packed}"


class Tuner:
    """Measures variants of an instruction and remembers the fastest for layers alike.

    Args:
        choices: `Choices`, where the fastest variants are noted, and known ones looked up.
        seconds: Float. How long to measure, times the number of variants.
    """

    def __init__(self, choices=None, seconds=0.008):
        self.choices = choices or Choices()
        self.seconds = seconds
        self.most_floats = math.inf  # the memory that an instruction may take

    def tries_sparse(self, density):
        """Whether sparse kernels are worth measuring for weights of a density."""
        return density < _ALWAYS_DENSE

    def variants(self, columns, vectors, size=(0, 0)):
        """The variants worth measuring for a product.

        Args:
            columns: `packing.Columns`.
            vectors: Integer. How many there are of pixels; of those of a line, if it is whole ones.
            size: (width, height) of the output.
        """
        found = _stacked(columns, *size) if self.tries_sparse(columns.density) else []
        tiles = []
        if self.tries_sparse(columns.density):
            # Zeros that come in blocks leave tiles out as a whole.
            tiles = [rows for rows in ROW_GROUPS[1:] if columns.filled(rows) >= _IN_BLOCKS]
        if columns.density > _ALWAYS_SPARSE:
            tiles.append(ROW_GROUPS[0])
        for tile in tiles:
            for width in {min(vectors, WIDEST_GROUP), min(vectors, 3)}:
                found.append(Variant(tile, 1, width))
                bytes_needed = len(columns.offsets) * width * LANES * 4
                found.append(Variant(tile, max(1, round(bytes_needed / (8 * _DENSE_CACHE))), width))
                found.append(Variant(tile, max(1, -(-bytes_needed // _DENSE_CACHE)), width, True))
        if self.tries_sparse(columns.density):
            for widest, caches in _SPARSE_CACHES.items():
                width = min(vectors, widest)
                bytes_needed = len(columns.offsets) * width * LANES * 4
                fitting = {-(-bytes_needed // cache) for cache in caches}
                for blocks in {1, 2} | fitting:
                    # Blocks shorter than a few non-zeros per row only store and load sums.
                    if blocks == 1 or len(columns.values) / columns.num_rows / blocks >= 4:
                        found.append(Variant(1, blocks, width))
                        if blocks in fitting or columns.masks:
                            found.append(Variant(1, blocks, width, True))
        if columns.masks:
            found = [variant for variant in found if variant.is_packed]
        elif columns.is_aligned:
            found = [variant for variant in found if not variant.is_packed or variant.is_stacked]
        return sorted(set(found), key=dataclasses.astuple)

    def fastest(self, ways, emit, likeness, x, num_threads, is_repeated=False):
        """The way that is the fastest for a layer, or for some layers, as within a network.

        There the caches of a core hold few of the weights, and of the input what this core made.

        Args:
            ways: List.
            emit: Function `(way, builder)` that emits its instructions.
            likeness: Tuple. What layers have in common that are measured once for all of them, as
                `Choices.find` has it.
            x: `Tensor`, the input.
            num_threads: Integer. Threads that share the work.
            is_repeated: Boolean. Whether it runs many times in a row, as the steps of a recurrent
                layer do: then its weights are in the caches.
        """
        if len(ways) == 1:
            return ways[0]
        likeness = (*likeness, num_threads, *["repeated"] * is_repeated)
        fastest = self.choices.find(likeness, ways)
        if fastest is None:
            left = list(ways)
            try:
                while len(left) > 1:
                    left = self._without_slower(left, emit, x, num_threads, is_repeated)
            except ValueError:  # not all of them fit into the memory that is allowed
                return ways[0]
            (fastest,) = left
            self.choices.add(likeness, ways, fastest)
        return fastest

    def _without_slower(self, ways, emit, x, num_threads, is_repeated):
        """The fastest of the first ways, as many as are in one race, and those behind them."""
        others = Tensor((1, _OTHERS, num_threads), "planes")
        builder = Builder(num_threads, self, most_floats=self.most_floats + others.size)
        ends = [*_emit_network(builder, others, x)]
        for way in ways:
            if len(ends) > 3 and builder.num_bytes > _MOST_BYTES:
                break
            builder.padded.clear()  # each makes its copy
            emit(way, builder)
            ends.append(builder.num_instructions)
        execution = Execution(builder.finish([], []), num_threads)
        execution.run_step((0, ends[0]))
        network, *runs = (
            functools.partial(execution.run_step, step) for step in itertools.pairwise(ends)
        )
        before, repeats = (None, 2) if is_repeated else (network, 1)
        times = self._race(runs, _MOST_TURNS if num_threads > 1 else _TURNS, before, repeats)
        return [ways[times.index(min(times))], *ways[len(runs) :]]

    def time(self, runner):
        """How long a run of a program takes, in seconds, with inputs of zero."""
        with runner.execution() as execution:
            execution.run()
            start = time.perf_counter()
            execution.run()
            return time.perf_counter() - start

    def faster(self, runner, other):
        """The `ProgramRunner` that is the faster one of two, the first one if they are alike."""
        with runner.execution() as execution, other.execution() as other_execution:
            # Helpers sleep while the other one runs, and wake with the first of two runs.
            times = self._race([execution.run, other_execution.run], _MOST_TURNS, repeats=2)
        return runner if times[0] <= _ALIKE * times[1] else other

    def _race(self, runs, most_turns, before=None, repeats=1):
        """How long each of some functions takes, in seconds; those far behind may not have run.

        They run in turns, so that a moment in which something else slows the machine down is one
        for all of them. Those that fall behind leave.

        Args:
            runs: List of functions.
            most_turns: Integer.
            before: Function that runs before each of them, or None.
            repeats: Integer. How often each runs in a turn, the last time timed.
        """
        best, left, began = [math.inf] * len(runs), range(len(runs)), time.perf_counter()
        limit = self.seconds * len(runs) * most_turns / _TURNS
        for turn in range(most_turns):
            for i in left:
                if before is not None:
                    before()
                for _ in range(repeats):
                    start = time.perf_counter()
                    runs[i]()
                    elapsed = time.perf_counter() - start
                if turn:  # the first brings weights into the last cache
                    best[i] = min(best[i], elapsed)
            if turn >= _LEAST_TURNS:
                slowest = min(best) * (_BEHIND if turn < most_turns // 2 else _CLOSELY_BEHIND)
                left = [i for i in left if best[i] <= slowest]
                if len(left) == 1 or time.perf_counter() - began > limit:
                    break
        return best


def _emit_network(builder, others, x):
    """Emits what a network does to the caches before a layer, in two steps.

    Args:
        builder: `plan.Builder`.
        others: `Tensor`, in planes, one for each thread: more than a core's own caches hold.
        x: `Tensor`, the layer's input.

    Yields:
        Where a step ends: of the first, which runs once, and of the second, which runs before each
        run of the layer.
    """
    builder.emit("fill", [others, others.size], [1.0])
    yield builder.num_instructions
    totals, threads = Tensor((others.channels,), "rows"), others.channels
    builder.emit(
        "global_pool", [others, others.size, others.plane, totals, 1, threads, others.pixels, 1]
    )
    if x.layout == "planes":  # each thread writes as many channels
        places = x.batch, x.sample_size, x.sample_size, x.channels, x.pixels, x.plane, x.plane
    else:
        places = 1, 0, 0, x.batch, x.sample_size, x.sample_size, x.sample_size
    builder.emit("copy", [x, x, *places])
    yield builder.num_instructions


def _stacked(columns, width, height):
    """Variants whose vectors are of lines below each other."""
    if columns.reach == 0 or width < _LEAST_FULL * round_up(width):
        return []
    lines = -(-height // -(-height // _MOST_STACKED))
    starts, _, _ = columns.copies(is_stacked=True)
    bytes_needed = len(starts) * (lines + columns.reach) * LANES * 4
    blocks = {-(-bytes_needed // cache) for cache in _STACKED_CACHES}
    return [Variant(1, count, lines, True, True) for count in blocks]


class Repeater:
    """A tuner for the same layers on several bands of an image: what it measures for the first band
    holds for the others.

    Args:
        tuner: `Tuner`.
    """

    def __init__(self, tuner):
        self._tuner, self._choices, self._count = tuner, [], 0
        self.variants, self.tries_sparse = tuner.variants, tuner.tries_sparse

    def restart(self):
        """Begins with the next band."""
        self._count = 0

    def fastest(self, variants, *rest, **options):
        """As `Tuner.fastest`."""
        self._count += 1
        known = self._choices[self._count - 1 : self._count]
        if known and known[0] in variants:
            return known[0]
        fastest = self._tuner.fastest(variants, *rest, **options)
        if not known:
            self._choices.append(fastest)
        return fastest
