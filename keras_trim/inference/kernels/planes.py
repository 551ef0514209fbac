"""Where the planes lie that a kernel works on one after the other. A *plane* is one channel of one
image.
"""

from numba import njit

# The first operands of these kernels. Distances are in floats.
X, X_SAMPLE, X_PLANE, Y, Y_SAMPLE, Y_PLANE, BATCH, CHANNELS, HEIGHT, WIDTH = range(1, 11)
OPERANDS = 10


@njit(nogil=True, boundscheck=False)
def place(p, plane, multiplier):
    """Where the plane of the output with a number lies, and the one of the input it is made of.

    Args:
        p: The operands.
        plane: Integer, counted through all samples.
        multiplier: Integer. Planes of the output per plane of the input.

    Returns:
        `(x, y, channel)`: two places in the arena, and the channel of the output.
    """
    channels = p[CHANNELS] * multiplier
    # A small plane takes no longer than a few divisions.
    sample = plane // channels if plane >= channels else 0
    channel = plane - sample * channels
    source = channel if multiplier == 1 else channel // multiplier
    x = p[X] + sample * p[X_SAMPLE] + source * p[X_PLANE]
    return x, p[Y] + sample * p[Y_SAMPLE] + channel * p[Y_PLANE], channel
