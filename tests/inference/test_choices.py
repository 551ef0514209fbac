"""What was measured once is not measured again by the next process."""

import os
import subprocess
import sys

import keras
import numba
import numpy as np
import pytest
from helpers import numbers, randomize

from keras_trim.inference import Engine, choices
from keras_trim.inference.choices import Choices
from keras_trim.inference.tuning import Tuner

WAYS = ["one", "another", "a third"]


def convolution():
    model = keras.Sequential(
        [keras.Input((16, 16, 8)), keras.layers.Conv2D(16, 3), keras.layers.Conv2D(16, 1)]
    )
    randomize(model, 0.7)
    return model


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where engines of this test keep their choices."""
    path = tmp_path / "choices.json"
    monkeypatch.setattr(Choices, "of_this_machine", classmethod(lambda cls: cls(path)))
    return path


def test_second_engine_measures_nothing(path, monkeypatch):
    model = convolution()
    first = Engine(model, num_threads=1)
    x = numbers(1, 16, 16, 8)
    expected, names = first(x), [row.kernel for row in first.summary().rows]
    races = []
    monkeypatch.setattr(Tuner, "_race", lambda tuner, runs, *rest: races.append(runs))
    second = Engine(model, num_threads=1)
    np.testing.assert_array_equal(second(x), expected)
    assert [row.kernel for row in second.summary().rows] == names
    assert not races


SCRIPT = """
import sys
from keras_trim.inference import Engine, engine
from keras_trim.inference.choices import Choices
from keras_trim.inference.tuning import Tuner

engine._SMALL = 60.0  # seconds: whether it runs on one thread is always measured
race, races = Tuner._race, []
Tuner._race = lambda *arguments, **options: races.append(1) or race(*arguments, **options)
Choices.of_this_machine = classmethod(lambda cls: cls(sys.argv[2]))
Engine.load(sys.argv[1], num_threads=2).summary()
print(len(races))
"""


def test_second_process_measures_nothing(tmp_path, one_backend):
    x = keras.Input((32, 32, 8))
    y = keras.layers.Conv2D(64, 3, padding="same")(x)
    y = keras.layers.DepthwiseConv2D(3, padding="same")(y)  # in bands, perhaps
    y = keras.layers.MaxPooling2D()(keras.layers.Conv2D(24, 1)(y))
    model = randomize(keras.Model(x, keras.layers.Dense(200)(keras.layers.Flatten()(y))), 0.7)
    Engine(model).save(tmp_path / "network.engine")
    races = []
    for seed in ("1", "2"):
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT, tmp_path / "network.engine", tmp_path / "choices.json"],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        races.append(int(process.stdout))
    assert races[0] > 3
    assert races[1] == 1  # whether a small network runs on one thread is measured each time


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"a": ', b"\xff\xfe", b"[" * 100_000])
def test_damaged_file_counts_as_empty(path, content):
    path.write_bytes(content)
    engine = Engine(convolution(), num_threads=1)
    assert np.isfinite(engine(numbers(1, 16, 16, 8))).all()
    assert path.read_bytes().startswith(b'{"')  # and was replaced


@pytest.mark.parametrize("number", [3, -1, 1.0, True, "0", None])
def test_impossible_number_is_no_choice(path, number):
    known = Choices(path)
    known.add("a layer", WAYS, "another")
    known.save()
    assert Choices(path).find("a layer", WAYS) == "another"
    text = path.read_text()
    assert text.endswith(": 1}")
    number = {None: "null", True: "true", "0": '"0"'}.get(number, number)
    path.write_text(text.replace(": 1}", f": {number}}}"))
    assert Choices(path).find("a layer", WAYS) is None


def test_choice_is_for_what_it_was_measured_for(path):
    known = Choices(path)
    known.add(("a layer", 3), WAYS, "a third")
    assert known.find(("a layer", 3), WAYS) == "a third"
    assert known.find(("a layer", 4), WAYS) is None
    assert known.find(("a layer", 3), WAYS[:2]) is None


def test_processes_add_to_one_file(path):
    one, other = Choices(path), Choices(path)
    one.add("a layer", WAYS, "one")
    one.save()
    other.add("another layer", WAYS, "another")
    other.save()
    both = Choices(path)
    assert both.find("a layer", WAYS) == "one"
    assert both.find("another layer", WAYS) == "another"


def test_oldest_choices_leave_a_full_file(path, monkeypatch):
    monkeypatch.setattr(choices, "_MOST", 2)
    for layer in ("first", "second", "third"):
        known = Choices(path)
        known.add(layer, WAYS, "one")
        known.save()
    found = [Choices(path).find(layer, WAYS) for layer in ("first", "second", "third")]
    assert found == [None, "one", "one"]


def test_folder_that_cannot_be_written_loses_nothing_but_time(path, monkeypatch):
    missing = path.parent / "missing" / "choices.json"
    monkeypatch.setattr(Choices, "of_this_machine", classmethod(lambda cls: cls(missing)))
    engine = Engine(convolution(), num_threads=1)
    assert np.isfinite(engine(numbers(1, 16, 16, 8))).all()
    assert not missing.exists()


def test_other_processors_and_kernels_have_files_of_their_own(monkeypatch):
    monkeypatch.undo()

    def name():
        choices._environment.cache_clear()
        return os.path.basename(Choices.of_this_machine()._path)

    here = name()
    assert here == name()
    with monkeypatch.context() as patch:
        patch.setattr(numba.config, "CPU_NAME", "another")
        assert name() != here
    with monkeypatch.context() as patch:
        patch.setattr(choices.pathlib.Path, "read_bytes", lambda path: b"other source")
        assert name() != here
    assert here == name()
