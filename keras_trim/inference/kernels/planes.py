"""Locates the planes that a kernel works on. A *plane* is one channel of one image."""

from keras_trim.inference.kernels.compiled import inner
from keras_trim.inference.kernels.instructions import PAD

# All instructions on planes begin with the same operands, in the same columns.
AT = PAD.at


@inner
def place(p, plane, multiplier):
    """Locates an output plane and the input plane it is computed from.

    Args:
        p: The instruction's operands.
        plane: Integer. The output plane, counted through all samples.
        multiplier: Integer. Output planes per input plane.

    Returns:
        `(x, y, channel)`: the places of both planes in the arena, and the output channel.
    """
    channels = p[AT.channels] * multiplier
    # Avoids divisions: a few of them take as long as computing a small plane.
    sample = plane // channels if plane >= channels else 0
    channel = plane - sample * channels
    source = channel if multiplier == 1 else channel // multiplier
    x = p[AT.x] + sample * p[AT.x_sample] + source * p[AT.x_plane]
    return x, p[AT.y] + sample * p[AT.y_sample] + channel * p[AT.y_plane], channel
