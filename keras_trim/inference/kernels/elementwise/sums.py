"""Sums in float64, in any order, so that LLVM can vectorize them; NaN stays NaN."""

from keras_trim.inference.kernels.compiled import inner


@inner(fastmath={"reassoc"})
def sum_of(x):
    total = 0.0
    for i in range(x.size):
        total += x[i]
    return total


@inner(fastmath={"reassoc"})
def sum_of_squares(x, center):
    """Returns the sum of the squares of `x - center`."""
    total = 0.0
    for i in range(x.size):
        d = x[i] - center
        total += d * d
    return total
