"""The front end of keyword spotting, against what TensorFlow's operations gave."""

import os
import pathlib

import numpy as np
import pytest

from benchmarks import _packs
from experiments.mfcc import mfcc

CLIPS = pathlib.Path(__file__).parent.parent / "data" / "speech_clips.npz"


def test_front_end_gives_tensorflows_coefficients():
    """Four clips of Speech Commands: silence, unknown, yes and stop."""
    clips = np.load(CLIPS)
    found = mfcc(clips["audio"])
    assert found.shape == (4, 49, 10)
    assert found.dtype == np.float32
    # The largest difference of all 240 clips of the pack is 3.8e-6.
    np.testing.assert_allclose(found, clips["mfcc"], rtol=0, atol=2e-5)
    assert np.ptp(clips["mfcc"]) > 50


def test_floats_are_samples_too():
    samples = np.load(CLIPS)["audio"][1]
    np.testing.assert_array_equal(mfcc(samples), mfcc(samples / 32768.0))


def test_no_sound_is_the_logarithms_floor():
    silence = mfcc(np.zeros(16_000, "int16"))
    np.testing.assert_allclose(silence[:, 0], np.sqrt(2 / 40) * 40 * np.log(1e-12), rtol=1e-6)
    np.testing.assert_allclose(silence[:, 1:], 0, atol=1e-5)


def test_all_clips_of_the_pack():
    folder = os.environ.get("KERAS_TRIM_DATA")
    if not folder:
        pytest.skip("the folder of data packs is not named by KERAS_TRIM_DATA")
    audio, places = _packs.audio(folder)
    expected, _ = _packs.speech(folder)
    difference = np.abs(mfcc(audio) - expected[places, ..., 0]).max()
    print(f"largest difference of {len(audio)} clips: {difference:.1e}")
    assert difference < 1e-5
