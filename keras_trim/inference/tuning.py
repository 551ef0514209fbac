"""Which variant of a kernel is the fastest for a layer: measured, on this machine."""

import dataclasses
import math
import time

import numpy as np

from keras_trim.inference.kernels.program import CODES, FACTORS, OPERANDS, aligned_zeros, run
from keras_trim.inference.kernels.register_tile import WIDEST, WIDEST_GROUP
from keras_trim.inference.kernels.vector import LANES
from keras_trim.inference.plan import Builder, Tensor, round_up

_CACHE = 24 * 1024  # bytes of first-level cache for activations
_ALWAYS_SPARSE, _ALWAYS_DENSE = 0.3, 0.8  # densities beyond which only one kind is tried


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a product is computed.

    Args:
        is_dense: Boolean. In register tiles of several rows, zeros within them multiplied.
        blocks: Integer. The parts that the reduction is split into.
        vectors: Integer. Vectors of pixels per pass over the weights.
        is_packed: Boolean. Activations are first copied to one place, aligned.
    """

    is_dense: bool
    blocks: int
    vectors: int
    is_packed: bool = False

    def __str__(self):
        kind = "dense" if self.is_dense else "sparse"
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
        if columns.density > _ALWAYS_SPARSE:
            for width in {min(vectors, WIDEST_GROUP), min(vectors, 3)}:
                found.append(Variant(True, 1, width))
                bytes_needed = len(columns.offsets) * width * LANES * 4
                found.append(Variant(True, max(1, round(bytes_needed / (8 * _CACHE))), width))
                found.append(Variant(True, max(1, -(-bytes_needed // _CACHE)), width, True))
        if columns.density < _ALWAYS_DENSE:
            for width in {min(vectors, WIDEST), min(vectors, WIDEST // 2)}:
                bytes_needed = len(columns.offsets) * width * LANES * 4
                fitting = -(-bytes_needed // _CACHE)
                for blocks in {1, 2, fitting, max(1, fitting // 2), 2 * fitting}:
                    # Blocks shorter than a few non-zeros per row only store and load sums.
                    if blocks == 1 or len(columns.values) / columns.num_rows / blocks >= 4:
                        found.append(Variant(False, blocks, width))
                        if blocks in (fitting, fitting // 2):
                            found.append(Variant(False, blocks, width, True))
        return sorted(set(found), key=dataclasses.astuple)

    def fastest(self, variants, instruction, likeness):
        """The variant that runs fastest, alone, on one thread.

        Args:
            variants: List.
            instruction: Function `(variant, builder) -> opcode, operands, factors`.
            likeness: What layers have in common that are measured once for all of them: hashable.
        """
        if len(variants) == 1:
            return variants[0]
        key = (likeness, tuple(variants))
        if key not in self._known:
            self._known[key] = min(
                variants,
                key=lambda variant: self.measure(lambda pool: instruction(variant, pool)),
            )
        return self._known[key]

    def measure(self, instruction):
        """Seconds that an instruction takes, alone, on one thread.

        Args:
            instruction: Function `builder -> opcode, operands, factors`.
        """
        builder = Builder(1, None, most_floats=self.most_floats)
        opcode, operands, factors = instruction(builder)
        tensors, size = {}, 0
        for operand in operands:
            if isinstance(operand, Tensor) and operand not in tensors:
                tensors[operand] = size
                size += round_up(operand.size + operand.slack)
        builder.require_memory(size)
        table = np.zeros((1, OPERANDS), np.int64)
        table[0, 0] = CODES[opcode]
        for i, operand in enumerate(operands):
            table[0, 1 + i] = tensors[operand] if isinstance(operand, Tensor) else operand
        values = np.zeros((1, FACTORS), np.float32)
        with np.errstate(over="ignore"):
            values[0, : len(factors)] = factors
        constants, index, short_index = builder.pools(aligned_zeros)
        arguments = (
            table, values, aligned_zeros(size), constants, index, short_index,
            np.zeros(2, np.int64), 0, 1, 0, 1,
        )  # fmt: skip
        run(*arguments)
        best, spent, runs = float("inf"), 0.0, 0
        while runs < 2 or (spent < self.seconds and runs < 20):
            start = time.perf_counter()
            run(*arguments)
            elapsed = time.perf_counter() - start
            best, spent, runs = min(best, elapsed), spent + elapsed, runs + 1
        return best
