"""Speech Commands' folder: parts, labels, and the MFCC of its wav files."""

import pathlib
import wave

import numpy as np
import pytest

from benchmarks._ds_cnn import LABELS
from experiments import keywords, speech_commands
from experiments.mfcc import mfcc

CLIPS = pathlib.Path(__file__).parent.parent / "data" / "speech_clips.npz"


def _write(path, samples, rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for word in (*LABELS[2:], "bed", "cat", "dog"):
        for i in range(3):
            _write(tmp_path / word / f"{i}.wav", rng.integers(-9000, 9000, 12_000))
    _write(tmp_path / "_background_noise_" / "pink.wav", rng.integers(-900, 900, 40_000))
    _write(tmp_path / "yes" / "1.wav", np.load(CLIPS)["audio"][2])
    words = [path.name for path in sorted(tmp_path.iterdir()) if path.name[0] != "_"]
    (tmp_path / "validation_list.txt").write_text("".join(f"{word}/0.wav\n" for word in words))
    (tmp_path / "testing_list.txt").write_text("".join(f"{word}/1.wav\n" for word in words))
    return tmp_path


def test_parts_have_all_labels_alike(folder):
    parts = speech_commands.load(folder)
    assert list(parts) == ["train", "val", "test"]
    for x, labels in parts.values():
        assert x.shape == (12, 49, 10, 1)
        assert np.bincount(labels, minlength=12).tolist() == [1] * 12


def test_a_wav_file_has_the_coefficients_of_its_samples(folder):
    x, labels = speech_commands.load(folder)["test"]
    expected = np.load(CLIPS)["mfcc"][2]
    np.testing.assert_allclose(x[labels == LABELS.index("yes")][0, ..., 0], expected, atol=2e-5)


def test_short_clips_end_in_silence():
    assert speech_commands.fit(np.array([3, 4], "int16"))[:4].tolist() == [3, 4, 0, 0]
    assert len(speech_commands.fit(np.zeros(20_000, "int16"))) == 16_000


def test_another_rate_is_an_error(tmp_path):
    _write(tmp_path / "clip.wav", np.zeros(8), rate=8_000)
    with pytest.raises(ValueError, match=r"16000 samples.*8000, 16, 1"):
        speech_commands.read(tmp_path / "clip.wav")


def test_the_task_draws_batches_of_the_folder(folder):
    task = keywords.Keywords(folder, quick=True)
    x, labels = task.batch(seed=0, epoch=0, index=1)
    assert x.shape == (8, 49, 10, 1)
    again, same = task.batch(seed=0, epoch=0, index=1)
    np.testing.assert_array_equal(x, again)
    np.testing.assert_array_equal(labels, same)
    assert "12 test" in task.about_data
    assert np.isfinite(x).all()
    assert mfcc(np.zeros(16_000, "int16")).min() < x.min() + 1
