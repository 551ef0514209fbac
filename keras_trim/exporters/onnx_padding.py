"""Supports padding "same" for images and sequences of any size when PyTorch's exporter traces.

Keras's torch backend computes the padding in Python, for the traced size only. Here, the padding is
a symbolic expression of the size.
"""

import contextlib


@contextlib.contextmanager
def free_sizes():
    """Makes Keras pad by symbolic expressions where sizes are free."""
    from keras.src.backend.torch import nn
    from torch.nn import functional as tnn

    as_in_keras, average_in_keras = nn._apply_same_padding, nn.average_pool
    averages = []  # average pooling that is being traced

    def average_pool(*args, **kwargs):
        averages.append(True)
        try:
            return average_in_keras(*args, **kwargs)
        finally:
            averages.pop()

    def apply(inputs, kernel_size, strides, data_format, operation_type, dilation_rate=1):
        sizes = inputs.shape[2:]
        if all(isinstance(size, int) for size in sizes):
            return as_in_keras(
                inputs, kernel_size, strides, data_format, operation_type, dilation_rate
            )
        if isinstance(dilation_rate, int):
            dilation_rate = (dilation_rate,) * len(sizes)
        is_pooling = operation_type == "pooling"
        windows = [
            kernel if is_pooling else (kernel - 1) * dilation + 1
            for kernel, dilation in zip(kernel_size, dilation_rate, strict=True)
        ]
        if all(stride == 1 and window % 2 for stride, window in zip(strides, windows, strict=True)):
            return inputs, [window // 2 for window in windows]
        pads = []
        for size, window, stride in zip(sizes, windows, strides, strict=True):
            pads = [*_padding(size, window, stride), *pads]  # PyTorch starts with the last axis
        if averages:  # on this backend, Keras averages over repeated edges
            return tnn.pad(inputs, pads, mode="replicate"), 0
        if is_pooling:
            return tnn.pad(inputs, pads, value=float("-inf")), 0
        return tnn.pad(inputs, pads), 0

    nn._apply_same_padding, nn.average_pool = apply, average_pool
    try:
        yield
    finally:
        nn._apply_same_padding, nn.average_pool = as_in_keras, average_in_keras


def _padding(size, window, stride):
    """Returns how much to pad before and after an axis."""
    import torch

    outputs = (size + stride - 1) // stride
    total = torch.sym_max(0, (outputs - 1) * stride + window - size)
    return total // 2, total - total // 2
