"""Where the planes lie that a kernel works on one after the other. A *plane* is one channel of one
image.
"""

from numba import njit

from keras_trim.inference.kernels.instructions import PAD

# They are the first operands of all instructions on planes, in the same columns.
AT = PAD.at


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
    channels = p[AT.channels] * multiplier
    # A small plane takes no longer than a few divisions.
    sample = plane // channels if plane >= channels else 0
    channel = plane - sample * channels
    source = channel if multiplier == 1 else channel // multiplier
    x = p[AT.x] + sample * p[AT.x_sample] + source * p[AT.x_plane]
    return x, p[AT.y] + sample * p[AT.y_sample] + channel * p[AT.y_plane], channel
