"""Pruning on PyTorch, where steps run eagerly and weights change in place."""

import keras
import torch
from keras import ops

from keras_trim.backend.float_bits import integer_type, is_half

CATCHES_UP_EARLY = True

# Above this size, sorting on a GPU saves too little time for the memory it takes.
_MAX_SORTED = 2**22
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


# Selection. Each counting pass is a separate call here. So on the CPU, NumPy's quickselect is
# faster; on a GPU a sort is, unless the weight is so large that its memory matters.


def magnitude_bits(values):
    dtype = keras.backend.standardize_dtype(values.dtype)
    if is_half(dtype):
        values = ops.cast(values, "float32")
    integer, _, magnitude, nan = integer_type(dtype)
    # In place: masking the sign makes the only copy.
    return values.view(getattr(torch, integer)).bitwise_and(magnitude).clamp_(max=nan)


@torch.no_grad()
def keep_largest(values, num_pruned):
    num_pruned = int(num_pruned)
    if num_pruned == values.numel():
        return torch.zeros(values.shape, dtype=torch.bool, device=values.device)
    if values.device.type == "cpu":
        # Partition a temporary copy, which is freed before the next one is made.
        threshold = _partition(magnitude_bits(values).reshape(-1).numpy(), num_pruned)
        bits = magnitude_bits(values).reshape(-1)
    else:
        bits = magnitude_bits(values).reshape(-1)
        find = _sort if bits.is_cuda and bits.numel() <= _MAX_SORTED else _bisect
        threshold = find(bits, num_pruned)
    keep = bits >= threshold
    surplus = num_pruned - (bits.numel() - int(torch.count_nonzero(keep)))
    if surplus:  # prune the last `surplus` of the weights equal to the threshold
        ties = torch.nonzero(bits == threshold).reshape(-1)
        keep[ties[ties.numel() - surplus :]] = False
    return keep.reshape(values.shape)


def _partition(array, index):
    """Returns the value at `index` of the sorted array. Reorders the array."""
    array.partition(index)
    return int(array[index])


def _sort(bits, index):
    """Same result by sorting: needs several times the memory, but only one device-to-host copy."""
    return int(torch.sort(bits).values[index])


def _bisect(bits, index):
    """Same result by counting: copies no tensor, but reads one number from the device per bit."""
    passes = 63 if bits.dtype == torch.int64 else 31
    threshold = 0
    for i in range(passes):
        candidate = threshold | (1 << (passes - 1 - i))
        if int(torch.count_nonzero(bits < candidate)) <= index:
            threshold = candidate
    return threshold


# Steps


def outside_graph(function):
    """Runs eagerly and without gradients: Python decides what depends on the step number."""
    return torch.compiler.disable(torch.no_grad()(function))


@outside_graph
def read_step(iterations):
    return int(ops.convert_to_tensor(iterations))  # always known; needs no copy


def loop_per_weight():
    raise AssertionError("steps of PyTorch are not traced")


run_if = opaque = loop_per_weight


# Assignments


def update(variable, function, other, strategy=None):
    """Assigns `function(value, value of other)` to a variable."""
    del strategy
    variable.assign(function(ops.convert_to_tensor(variable), ops.convert_to_tensor(other)))


def zero(variable, mask, unless=None, strategy=None):
    """Zeros a variable where its mask is `False`."""
    del unless, strategy
    # Multiply in place and as integers: a float product leaves NaN as NaN and turns -1 into -0.
    bits = variable.value.view(_INTEGERS[variable.value.element_size()])
    bits.mul_(mask.value.view(torch.int8))  # with bools this takes a third longer


def mask_initializer(layout):
    del layout
    return "ones"


# Files


def as_state(array):
    """Returns a tensor: by default, `torch.load` refuses files that hold NumPy's arrays."""
    return torch.from_numpy(array)
