"""What goes between Python and a program: too little work to leave Python for other threads."""

from keras_trim.inference.kernels.compiled import compiled


@compiled(nogil=False)
def note_address(x, addresses, i):
    """Writes where the array is. In C as in NumPy, but NumPy takes ten times as long."""
    addresses[i] = x.ctypes.data


@compiled(nogil=False)
def are_zero(x):
    """Whether all elements are zero; by Numba for the same reason."""
    count = 0
    for value in x:
        count += value != 0
    return count == 0
