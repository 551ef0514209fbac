"""Output sizes and amounts of padding."""


def padding_of(padding, size, window, stride, dilation=1):
    """(output size, padding before, padding after) of one axis.

    `padding` is "valid", "same" (as in TensorFlow: an odd amount pads more after), "causal", or a
    pair of integers.
    """
    reach = (window - 1) * dilation + 1
    if padding == "same":
        output = -(-size // stride)
        total = max((output - 1) * stride + reach - size, 0)
        return output, total // 2, total - total // 2
    if padding == "valid":
        before, after = 0, 0
    elif padding == "causal":
        before, after = reach - 1, 0
    else:
        before, after = padding
    return max((size + before + after - reach) // stride + 1, 0), before, after
