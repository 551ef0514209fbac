"""Which variant of a kernel is the fastest for a layer: measured, on this machine."""

import dataclasses
import math
import time

from keras_trim.alignment import aligned_zeros
from keras_trim.inference.kernels.program import run
from keras_trim.inference.kernels.register_tile import ROW_GROUPS, WIDEST, WIDEST_GROUP
from keras_trim.inference.kernels.threads import make_control
from keras_trim.inference.kernels.vector import LANES
from keras_trim.inference.plan import Builder

_CACHE = 24 * 1024  # bytes of first-level cache for activations
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
    """

    tile: int
    blocks: int
    vectors: int
    is_packed: bool = False

    @property
    def is_dense(self):
        return self.tile == ROW_GROUPS[0]

    def __str__(self):
        kind = "dense" if self.is_dense else "sparse"
        kind = kind if self.is_dense or self.tile == 1 else f"tiles of {self.tile} rows"
        blocks = f", {self.blocks} blocks" if self.blocks > 1 else ""
        packed = ", packed" if self.is_packed else ""
        return f"{kind}, {self.vectors * LANES} pixels{blocks}{packed}"


class Tuner:
    """Measures variants of an instruction and remembers the fastest for layers alike.

    Args:
        seconds: Float. How long to measure each variant at most.
    """

    def __init__(self, seconds=0.005):
        self.seconds = seconds
        self.most_floats = math.inf  # the memory that an instruction may take
        self._known = {}  # what the layer is like -> the fastest variant

    def variants(self, columns, vectors):
        """The variants worth measuring for a product."""
        found = []
        tiles = []
        if columns.density < _ALWAYS_DENSE:
            # Zeros that come in blocks leave tiles out as a whole.
            tiles = [rows for rows in ROW_GROUPS[1:] if columns.filled(rows) >= _IN_BLOCKS]
        if columns.density > _ALWAYS_SPARSE:
            tiles.append(ROW_GROUPS[0])
        for tile in tiles:
            for width in {min(vectors, WIDEST_GROUP), min(vectors, 3)}:
                found.append(Variant(tile, 1, width))
                bytes_needed = len(columns.offsets) * width * LANES * 4
                found.append(Variant(tile, max(1, round(bytes_needed / (8 * _CACHE))), width))
                found.append(Variant(tile, max(1, -(-bytes_needed // _CACHE)), width, True))
        if columns.density < _ALWAYS_DENSE:
            for width in {min(vectors, WIDEST), min(vectors, WIDEST // 2)}:
                bytes_needed = len(columns.offsets) * width * LANES * 4
                fitting = -(-bytes_needed // _CACHE)
                for blocks in {1, 2, fitting, max(1, fitting // 2), 2 * fitting}:
                    # Blocks shorter than a few non-zeros per row only store and load sums.
                    if blocks == 1 or len(columns.values) / columns.num_rows / blocks >= 4:
                        found.append(Variant(1, blocks, width))
                        if blocks in (fitting, fitting // 2):
                            found.append(Variant(1, blocks, width, True))
        return sorted(set(found), key=dataclasses.astuple)

    def fastest(self, variants, emit, likeness):
        """The variant that runs fastest, alone, on one thread.

        Args:
            variants: List.
            emit: Function `(variant, builder)` that emits its instructions.
            likeness: What layers have in common that are measured once for all of them: hashable.
        """
        if len(variants) == 1:
            return variants[0]
        key = (likeness, tuple(variants))
        if key not in self._known:
            self._known[key] = min(variants, key=lambda variant: self._measure(variant, emit))
        return self._known[key]

    def _measure(self, variant, emit):
        """Seconds that instructions take, alone, on one thread."""
        builder = Builder(1, self, most_floats=self.most_floats)
        emit(variant, builder)
        program = builder.finish([], [])
        arguments = (
            program.table, program.factors, aligned_zeros(program.arena_size), program.constants,
            program.index, program.short_index, make_control(1), 0, 1, *program.steps[0],
        )  # fmt: skip
        run(*arguments)
        best, spent, runs = float("inf"), 0.0, 0
        while runs < 2 or (spent < self.seconds and runs < 20):
            start = time.perf_counter()
            run(*arguments)
            elapsed = time.perf_counter() - start
            best, spent, runs = min(best, elapsed), spent + elapsed, runs + 1
        return best
