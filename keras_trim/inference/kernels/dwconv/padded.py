"""Windows that move over each plane separately: depthwise convolutions and pooling.

This kernel takes any window. It works on a padded copy of each plane, in a scratch buffer that
stays in cache. For the windows of most networks, `rolling.py` and `masked.py` are faster.
"""

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.elementwise.scalars import clip
from keras_trim.inference.kernels.instructions import DWCONV_PADDED, executes
from keras_trim.inference.kernels.layout.copies import copy_floats
from keras_trim.inference.kernels.layout.padding import pad_plane
from keras_trim.inference.kernels.llvm import CLIP, FIRST, LANES
from keras_trim.inference.kernels.planes import place
from keras_trim.inference.kernels.pooling.reductions import window
from keras_trim.inference.kernels.spmm.micro_kernel import spmm_micro_kernel
from keras_trim.inference.kernels.work_sharing import take

AT = DWCONV_PADDED.at

KINDS = ("product", "sum", "maximum")  # how a window is reduced
PRODUCT, SUM, MAXIMUM = range(3)

_product, _sum, _maximum = spmm_micro_kernel(1, 1), window("sum"), window("maximum")


@executes(DWCONV_PADDED)
@inner
def dwconv_padded(p, f, arena, constants, index, control, thread, num_threads):
    """y[c * multiplier + m] = product, sum or maximum over the windows of x[c].

    Pads several channels before it computes them: a vector load right after a store to part of the
    same memory stalls.
    """
    planes, together = p[AT.batch] * p[AT.channels], p[AT.together]
    phases = p[AT.phases_y] * p[AT.phases_x] * p[AT.padded_plane]
    scratch = p[AT.scratch] + thread * p[AT.scratch_size]
    last_line = scratch + together * phases
    begin, end = take(control, planes, together, thread, num_threads)
    while begin < end:
        for i in range(end - begin):
            x, _, _ = place(p, begin + i, 1)
            pad_plane(
                arena, x, p[AT.height], p[AT.width], scratch + i * phases, p[AT.padded_plane],
                p[AT.rows],
                p[AT.row], p[AT.top], p[AT.left], p[AT.stride_y], p[AT.stride_x], 1, 1,
                p[AT.phases_y], p[AT.phases_x],
                f[AT.pad_value],
            )  # fmt: skip
        for i in range(end - begin):
            for m in range(p[AT.multiplier]):
                _, y, out = place(p, (begin + i) * p[AT.multiplier] + m, p[AT.multiplier])
                _plane(p, f, arena, constants, index, scratch + i * phases, y, out, last_line)
        begin, end = take(control, planes, together, thread, num_threads)


@inner
def _plane(p, f, arena, constants, index, x, y, out, last_line):
    """Computes one output plane from a padded input plane.

    Stores whole vectors: the next line overwrites the excess of a line. The last lines have no line
    after them, so they are computed in scratch memory and copied.
    """
    base, width, height = arena.ctypes.data, p[AT.out_width], p[AT.out_height]
    values = constants.ctypes.data + 4 * (p[AT.values] + out * p[AT.num_values])
    for line in range(height):
        is_copied = width % LANES != 0 and (height - line - 1) * width < LANES
        target = last_line if is_copied else y + line * width
        for column in range(0, width, LANES):
            _vector(
                p[AT.kind], base + 4 * (x + line * p[AT.row] + column),
                index.ctypes.data + 4 * p[AT.offsets], p[AT.taps], values,
                constants.ctypes.data + 4 * (p[AT.bias] + out), base + 4 * (target + column),
                FIRST | (p[AT.flags] & CLIP), f[AT.low], f[AT.high],
            )  # fmt: skip
        if is_copied:
            copy_floats(base + 4 * (y + line * width), base + 4 * target, width)
    if p[AT.kind] == SUM:
        for i in range(y, y + width * height):
            arena[i] *= constants[p[AT.values] + i - y]
    if p[AT.kind] != PRODUCT and p[AT.flags] & CLIP:
        for i in range(y, y + width * height):
            arena[i] = clip(arena[i], f[AT.low], f[AT.high])


@inner
def _vector(kind, x, offsets, taps, values, bias, y, flags, low, high):
    if kind == PRODUCT:  # one group of one row; its entry in the table follows the offsets
        _product(
            x, offsets, values, offsets + 4 * taps, 1, 0, 0, y, 0, bias, 0, flags, low, high,
        )  # fmt: skip
    elif kind == MAXIMUM:
        _maximum(x, offsets, taps, y)
    else:
        _sum(x, offsets, taps, y)
