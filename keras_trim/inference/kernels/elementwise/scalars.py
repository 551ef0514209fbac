"""Functions of one float32, written so that LLVM vectorizes a loop over them.

NumPy's and Numba's `exp` cost a call per element. These cost a few multiplications each: a range
reduction to a power of two and a polynomial (Cephes' coefficients for single precision), with a
relative error below 2e-7.
"""

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

_F = np.float32
_LOG2_E = _F(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = _F(0.693359375), _F(-2.12194440e-4)
_ONE, _HALF, _ZERO = _F(1), _F(0.5), _F(0)


@intrinsic
def _float_from_bits(typing_context, bits):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), codegen


@njit(nogil=True, inline="always")
def clip(x, low, high):
    """Clips x; NaN stays NaN."""
    x = low if x < low else x
    return high if x > high else x


@njit(nogil=True, inline="always")
def exp(x):
    """e to the x; 0 below -87.3, infinity above 88.7, NaN for NaN."""
    bounded = _F(-87.33) if x < _F(-87.33) else x
    bounded = _F(88.72) if bounded > _F(88.72) else bounded
    n = np.floor(bounded * _LOG2_E + _HALF)
    r = bounded - n * _LN2_HIGH - n * _LN2_LOW
    y = _F(1.9875691500e-4)
    y = y * r + _F(1.3981999507e-3)
    y = y * r + _F(8.3334519073e-3)
    y = y * r + _F(4.1665795894e-2)
    y = y * r + _F(1.6666665459e-1)
    y = y * r + _F(5.0000001201e-1)
    y = y * r * r + r + _ONE
    # In two factors: 2**128 overflows float32, but exp(88.7) does not.
    n = n if n == n else _ZERO
    half = np.int32(n) >> 1
    rest = np.int32(n) - half
    y = y * _float_from_bits(np.int32((half + 127) << 23))
    y = y * _float_from_bits(np.int32((rest + 127) << 23))
    y = _ZERO if x < _F(-87.33) else y
    return _F(np.inf) if x > _F(88.7228) else y


@njit(nogil=True, inline="always")
def sigmoid(x):
    return _ONE / (_ONE + exp(-x))


@njit(nogil=True, inline="always")
def tanh(x):
    # The quotient loses digits near 0, so a polynomial is used there.
    a = abs(x)
    s = x * x
    p = _F(-5.70498872745e-3)
    p = p * s + _F(2.06390887954e-2)
    p = p * s + _F(-5.37397155531e-2)
    p = p * s + _F(1.33314422036e-1)
    p = p * s + _F(-3.33332819422e-1)
    small = p * s * x + x
    big = _ONE - _F(2) / (exp(a + a) + _ONE)
    big = -big if x < _ZERO else big
    return small if a < _F(0.625) else big


@njit(nogil=True, inline="always")
def erfc(x):
    """1 - erf(x), with a relative error below 2e-7 on both sides of 0.

    A Chebyshev fit of erfc itself, because 1 - erf(x) has no digits left where x is large.
    """
    a = abs(x)
    t = _ONE / (_ONE + _HALF * a)
    p = _F(0.17087277)
    p = p * t + _F(-0.82215223)
    p = p * t + _F(1.48851587)
    p = p * t + _F(-1.13520398)
    p = p * t + _F(0.27886807)
    p = p * t + _F(-0.18628806)
    p = p * t + _F(0.09678418)
    p = p * t + _F(0.37409196)
    p = p * t + _F(1.00002368)
    p = p * t + _F(-1.26551223)
    y = t * exp(p - a * a)
    return _F(2) - y if x < _ZERO else y
