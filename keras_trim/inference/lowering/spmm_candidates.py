"""Which tilings of an SpMM are worth measuring."""

import dataclasses

from keras_trim.inference.kernels.llvm import LANES
from keras_trim.inference.kernels.spmm.micro_kernel import ROW_GROUPS, WIDEST_GROUP

_KIB = 1024
_DENSE_CACHE = 24 * _KIB  # bytes of first-level cache for activations
# The same for sparse rows, by vectors of pixels. With less cache, sums are loaded and stored more
# often. First-level caches have 32 to 128 KiB.
_SPARSE_CACHES = {8: (24 * _KIB, 56 * _KIB), 6: (48 * _KIB,), 4: (24 * _KIB, 48 * _KIB)}
_FULL = 0.75  # least density within non-zero tiles of rows to be worth measuring
_ALWAYS_SPARSE, _ALWAYS_DENSE = 0.3, 0.8  # densities beyond which only one kind is measured
_LEAST_WEIGHTS = 4  # of a row in a block; with fewer, blocks mostly store and load sums


@dataclasses.dataclass(frozen=True)
class SpmmTiling:
    """How an SpMM is computed.

    Args:
        tile: Integer. Rows of a register tile. They share their columns, and zeros within the tile
            are multiplied. With 1, each row has its own columns.
        blocks: Integer. The number of parts that the reduction is split into.
        vectors: Integer. Vectors of pixels per pass over the weights.
        is_packed: Boolean. Whether activations are first packed into one place, aligned.
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


def tries_sparse(density):
    """Whether sparse kernels are worth measuring at this density of weights."""
    return density < _ALWAYS_DENSE


def spmm_candidates(columns, vectors):
    """Lists the tilings worth measuring for an SpMM.

    Args:
        columns: `packing.SparseColumns`.
        vectors: Integer. Vectors of pixels in all, or per line if lines are whole vectors.

    Returns:
        List of `SpmmTiling`.
    """
    found, tiles, is_sparse = set(), [], tries_sparse(columns.density)
    if is_sparse:  # block sparsity leaves out whole tiles
        tiles = [rows for rows in ROW_GROUPS[1:] if columns.filled(rows) >= _FULL]
    if columns.density > _ALWAYS_SPARSE:
        tiles.append(ROW_GROUPS[0])
    for tile in tiles:
        for width in {min(vectors, WIDEST_GROUP), min(vectors, 3)}:
            found.add(SpmmTiling(tile, 1, width))
            size = _bytes(columns, width)
            found.add(SpmmTiling(tile, max(1, round(size / (8 * _DENSE_CACHE))), width))
            found.add(SpmmTiling(tile, max(1, -(-size // _DENSE_CACHE)), width, True))
    if is_sparse:
        found |= _sparse(columns, vectors)
    if columns.masks is not None:
        found = {tiling for tiling in found if tiling.is_packed}
    elif columns.is_aligned:
        found = {tiling for tiling in found if not tiling.is_packed}
    return sorted(found, key=dataclasses.astuple)


def _sparse(columns, vectors):
    """Lists tilings of single rows."""
    found = set()
    for widest, caches in _SPARSE_CACHES.items():
        width = min(vectors, widest)
        fitting = {-(-_bytes(columns, width) // cache) for cache in caches}
        for blocks in {1, 2} | fitting:
            weights = len(columns.values) / columns.num_rows / blocks
            if blocks == 1 or weights >= _LEAST_WEIGHTS:
                found.add(SpmmTiling(1, blocks, width))
                if blocks in fitting or columns.masks is not None:
                    found.add(SpmmTiling(1, blocks, width, True))
    return found


def _bytes(columns, width):
    """Returns how many bytes of activations a pass over the weights reads."""
    return len(columns.offsets) * width * LANES * 4
