"""Speech Commands as its folder of wav files, through the front end of `mfcc`."""

import pathlib
import wave

import numpy as np

from benchmarks._ds_cnn import LABELS
from experiments.mfcc import SAMPLE_RATE, SAMPLES, mfcc

_NOISE = "_background_noise_"
_LISTS = {"validation_list.txt": "val", "testing_list.txt": "test"}
_SILENCE, _UNKNOWN = 0, 1


def load(folder, seed=0):
    """Clips of the official parts, as the networks of the page are trained and tested on.

    As many clips of other words ("unknown") and of background noise ("silence") are taken for each
    part as there are of a keyword on average; the others are left out.

    Args:
        folder: Path with `<word>/*.wav` (16 kHz, 16 bits, mono), `validation_list.txt`,
            `testing_list.txt` and `_background_noise_/*.wav`.
        seed: Integer. Of which clips of other words, and which seconds of noise.

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
    x = [mfcc(each)[..., None] for each in samples]  # one by one: windows take memory
    return np.stack(x), np.array(labels, "int64")


def read(path):
    """int16 (samples,) of a wav file.

    Raises:
        ValueError: if it is not 16 kHz, 16 bits, mono.
    """
    with wave.open(str(path)) as file:
        form = file.getframerate(), 8 * file.getsampwidth(), file.getnchannels()
        if form != (SAMPLE_RATE, 16, 1):
            raise ValueError(
                f"Clips must have {SAMPLE_RATE} samples of 16 bits a second, and one channel. "
                f"Received: {path} with (rate, bits, channels)={form}"
            )
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def fit(samples):
    """One second of samples: cut, or filled up with zeros."""
    return np.pad(samples[:SAMPLES], (0, max(0, SAMPLES - len(samples))))
