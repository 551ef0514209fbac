"""The front end of Arm's DS-CNN: turns 16,000 audio samples into 49x10 MFCC.

Computes in NumPy what TensorFlow's operations `AudioSpectrogram` and `Mfcc` do: Fourier magnitudes
of 40 ms Hann windows with a stride of 20 ms, 40 triangular filters evenly spaced on the mel scale
from 20 to 4000 Hz, the logarithm, and the first 10 coefficients of a cosine transform.
"""

import numpy as np

SAMPLE_RATE = 16_000
SAMPLES = 16_000
WINDOW, STRIDE = 640, 320
_FFT = 1024  # the next power of two after the window
_CHANNELS, _COEFFICIENTS = 40, 10
_LOWEST, _HIGHEST = 20.0, 4000.0  # Hz
_FLOOR = 1e-12  # smaller values are clamped to this before the logarithm


def mfcc(samples):
    """Computes mel-frequency cepstral coefficients.

    Args:
        samples: int16 or float array of shape (..., samples). Floats are in [-1, 1].

    Returns:
        float32 array of shape (..., frames, 10). One second has 49 frames.
    """
    samples = np.asarray(samples)
    if samples.dtype == np.int16:
        samples = samples / 32768.0
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW, axis=-1)[..., ::STRIDE, :]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    magnitudes = np.abs(np.fft.rfft(frames * hann, _FFT))
    mel = np.maximum(magnitudes @ _mel_weights(), _FLOOR)
    return (np.log(mel) @ _cosines()).astype("float32")


def _mel_weights():
    """Returns the mel filter bank, a float array of shape (frequencies, channels).

    Each triangle begins and ends at the centers of its neighbors.
    """
    frequencies = np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT
    first = int(1.5 + _LOWEST * _FFT / SAMPLE_RATE)
    last = int(_HIGHEST * _FFT / SAMPLE_RATE)
    corners = np.linspace(_mel(_LOWEST), _mel(_HIGHEST), _CHANNELS + 2)
    position = _mel(frequencies)[:, None]
    rising = (position - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - position) / (corners[2:] - corners[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[:first] = 0.0
    weights[last + 1 :] = 0.0
    return weights


def _mel(hertz):
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


def _cosines():
    """Returns the type-2 cosine transform, a float array of shape (channels, coefficients)."""
    k, n = np.arange(_COEFFICIENTS), np.arange(_CHANNELS)[:, None] + 0.5
    return np.sqrt(2.0 / _CHANNELS) * np.cos(np.pi / _CHANNELS * k * n)
