"""Loads Speech Commands from its folder of WAV files, as MFCC."""

import pathlib
import wave

import numpy as np

from benchmarks._ds_cnn import LABELS
from experiments.mfcc import SAMPLE_RATE, SAMPLES, mfcc

_NOISE = "_background_noise_"
_LISTS = {"validation_list.txt": "val", "testing_list.txt": "test"}
_SILENCE, _UNKNOWN = 0, 1


def load(folder, seed=0):
    """Loads the official training, validation and test sets, with balanced classes.

    Each set gets as many clips of other words ("unknown") and of background noise ("silence") as it
    has clips per keyword on average. The remaining clips of other words are left out.

    Args:
        folder: Path with `<word>/*.wav` (16 kHz, 16 bits, mono), `validation_list.txt`,
            `testing_list.txt` and `_background_noise_/*.wav`.
        seed: Integer. Selects the clips of other words and the seconds of noise.

    Returns:
        Dict: `"train"`, `"val"`, `"test"` -> tuple of MFCC, float32 (clips, 49, 10, 1), and labels,
        int64 (clips,).
    """
    folder = pathlib.Path(folder)
    rng = np.random.default_rng(seed)
    listed = {
        line.strip(): part
        for name, part in _LISTS.items()
        for line in (folder / name).read_text().splitlines()
    }
    files = {part: ([], []) for part in ("train", "val", "test")}
    for path in sorted(folder.glob("*/*.wav")):
        word = path.parent.name
        if word == _NOISE:
            continue
        known, unknown = files[listed.get(f"{word}/{path.name}", "train")]
        (known if word in LABELS[2:] else unknown).append(path)
    noise = [read(path) for path in sorted((folder / _NOISE).glob("*.wav"))]
    return {part: _clips(known, unknown, noise, rng) for part, (known, unknown) in files.items()}


def _clips(known, unknown, noise, rng):
    count = max(1, len(known) // len(LABELS[2:]))
    if len(unknown) > count:
        unknown = [unknown[i] for i in sorted(rng.choice(len(unknown), count, replace=False))]
    samples = [fit(read(path)) for path in (*known, *unknown)]
    labels = [LABELS.index(path.parent.name) for path in known] + [_UNKNOWN] * len(unknown)
    for _ in range(count if noise else 0):
        whole = noise[rng.integers(len(noise))]
        start = rng.integers(max(1, len(whole) - SAMPLES))
        piece = fit(whole[start : start + SAMPLES])
        samples.append((piece * rng.random()).astype("int16"))
    labels += [_SILENCE] * (len(samples) - len(labels))
    x = [mfcc(each)[..., None] for each in samples]  # one at a time, to save memory
    return np.stack(x), np.array(labels, "int64")


def read(path):
    """Reads a WAV file.

    Returns:
        int16 array of shape (samples,).

    Raises:
        ValueError: If the file is not 16 kHz, 16 bits, mono.
    """
    with wave.open(str(path)) as file:
        audio_format = file.getframerate(), 8 * file.getsampwidth(), file.getnchannels()
        if audio_format != (SAMPLE_RATE, 16, 1):
            raise ValueError(
                f"Clips must be mono, with {SAMPLE_RATE} samples of 16 bits per second. "
                f"Received: {path} with (rate, bits, channels)={audio_format}"
            )
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def fit(samples):
    """Truncates the samples to one second, or pads them with zeros."""
    return np.pad(samples[:SAMPLES], (0, max(0, SAMPLES - len(samples))))
