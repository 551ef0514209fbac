"""Depthwise convolution with any window: each channel padded in a scratch buffer, which stays in
cache. For the windows of most networks `lines.py` and `flat.py` are faster.
"""

from numba import njit

from keras_trim.inference.kernels.padding import pad_plane
from keras_trim.inference.kernels.planes import BATCH, CHANNELS, HEIGHT, OPERANDS, WIDTH, place
from keras_trim.inference.kernels.threads import take
from keras_trim.inference.kernels.vector import CLIP, FIRST
from keras_trim.inference.kernels.windows import window_plane

(
    MULTIPLIER, OUT_HEIGHT, OUT_WIDTH, TOP, LEFT, STRIDE_Y, STRIDE_X, ROWS, ROW, OFFSETS, TAPS,
    VALUES, BIAS, SCRATCH, SCRATCH_SIZE, PADDED_PLANE, FLAGS, PHASES_Y, PHASES_X, TOGETHER, NUMBER,
) = range(OPERANDS + 1, OPERANDS + 22)  # fmt: skip


@njit(nogil=True, boundscheck=False)
def depthwise(p, f, arena, constants, index, control, thread, num_threads):
    """y[c * multiplier + m] = clip(kernel[c, m] * x[c] + bias).

    Some channels are padded before they are computed: a load right behind a store of part of what
    it loads would wait for it.
    """
    planes, together = p[BATCH] * p[CHANNELS], p[TOGETHER]
    phases = p[PHASES_Y] * p[PHASES_X] * p[PADDED_PLANE]
    scratch = p[SCRATCH] + thread * p[SCRATCH_SIZE]
    last_lines = scratch + together * phases
    begin, end = take(control, planes, together, thread, num_threads)
    while begin < end:
        for i in range(end - begin):
            x, _, _ = place(p, begin + i, 1)
            pad_plane(
                arena, x, p[HEIGHT], p[WIDTH], scratch + i * phases, p[PADDED_PLANE], p[ROWS],
                p[ROW], p[TOP], p[LEFT], p[STRIDE_Y], p[STRIDE_X], 1, 1, p[PHASES_Y], p[PHASES_X],
                0.0,
            )  # fmt: skip
        for i in range(end - begin):
            for m in range(p[MULTIPLIER]):
                _, y, out = place(p, (begin + i) * p[MULTIPLIER] + m, p[MULTIPLIER])
                window_plane(
                    arena, scratch + i * phases, p[ROW], p[PADDED_PLANE], y, p[OUT_WIDTH],
                    p[OUT_HEIGHT], p[NUMBER], index.ctypes.data + 4 * p[OFFSETS], p[TAPS],
                    constants.ctypes.data + 4 * (p[VALUES] + out * p[TAPS]),
                    constants.ctypes.data + 4 * (p[BIAS] + out), FIRST | (p[FLAGS] & CLIP), f[0],
                    f[1], last_lines,
                )  # fmt: skip
        begin, end = take(control, planes, together, thread, num_threads)
