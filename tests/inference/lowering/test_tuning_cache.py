"""What was measured once is not measured again by the next process."""

import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import numbers, randomize

from keras_trim.inference import Engine, caches
from keras_trim.inference.lowering import tuning_cache
from keras_trim.inference.lowering.tuner import Tuner
from keras_trim.inference.lowering.tuning_cache import TuningCache

WAYS = ["one", "another", "a third"]


def convolution():
    model = keras.Sequential(
        [keras.Input((16, 16, 8)), keras.layers.Conv2D(16, 3), keras.layers.Conv2D(16, 1)]
    )
    randomize(model, 0.7)
    return model


@pytest.fixture
def name(monkeypatch):
    """Where engines of this test keep their choices: a file of the cache, in memory."""
    files = {}
    monkeypatch.setattr(caches, "read", files.get)
    monkeypatch.setattr(caches, "write", files.__setitem__)
    monkeypatch.setattr(TuningCache, "of_this_machine", classmethod(lambda cls: cls("choices")))
    return "choices"


def test_second_engine_measures_nothing(name, monkeypatch):
    model = convolution()
    first = Engine(model, num_threads=1)
    x = numbers(1, 16, 16, 8)
    expected, names = first(x), [row.kernel for row in first.summary().rows]
    races = []
    monkeypatch.setattr(Tuner, "race", lambda tuner, runs, *rest: races.append(runs))
    second = Engine(model, num_threads=1)
    np.testing.assert_array_equal(second(x), expected)
    assert [row.kernel for row in second.summary().rows] == names
    assert not races


SCRIPT = """
import sys
from keras_trim.inference import Engine, planner
from keras_trim.inference.lowering.tuner import Tuner

planner.SMALL_SECONDS = 60.0  # seconds: whether it runs on one thread is always measured
race, races = Tuner.race, []
Tuner.race = lambda *arguments, **options: races.append(1) or race(*arguments, **options)
Engine.load(sys.argv[1], num_threads=2).summary()
print(len(races))
"""


@pytest.mark.slow
def test_second_process_measures_nothing(tmp_path, one_backend):
    x = keras.Input((32, 32, 8))
    y = keras.layers.Conv2D(64, 3, padding="same")(x)
    y = keras.layers.DepthwiseConv2D(3, padding="same")(y)  # in bands, perhaps
    y = keras.layers.MaxPooling2D()(keras.layers.Conv2D(24, 1)(y))
    model = randomize(keras.Model(x, keras.layers.Dense(200)(keras.layers.Flatten()(y))), 0.7)
    Engine(model).save(tmp_path / "network.engine")
    folder = tmp_path / "cache"  # with the kernels of this machine, but none of its choices
    kernels = [*caches.cache_dir().glob(f"{caches.environment()}/*.kernel")]
    os.makedirs(folder / caches.environment())
    for path in kernels:
        shutil.copy(path, folder / caches.environment())
    races = []
    for seed in ("1", "2"):
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT, tmp_path / "network.engine"],
            env=os.environ | {"PYTHONHASHSEED": seed, "KERAS_TRIM_CACHE_DIR": str(folder)},
            capture_output=True,
            text=True,
            check=True,
        )
        races.append(int(process.stdout))
    assert races[0] > 3
    assert races[1] == 1  # whether a small network runs on one thread is measured each time


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"a": ', b"\xff\xfe", b"[" * 100_000])
def test_damaged_file_counts_as_empty(name, content):
    caches.write(name, content)
    engine = Engine(convolution(), num_threads=1)
    assert np.isfinite(engine(numbers(1, 16, 16, 8))).all()
    assert caches.read(name).startswith(b'{"')  # and was replaced


@pytest.mark.parametrize("number", [3, -1, 1.0, True, "0", None])
def test_impossible_number_is_no_choice(name, number):
    known = TuningCache(name)
    known.add("a layer", WAYS, "another")
    known.save()
    assert TuningCache(name).find("a layer", WAYS) == "another"
    ((digest, one),) = json.loads(caches.read(name)).items()
    assert one == 1
    caches.write(name, json.dumps({digest: number}).encode())
    assert TuningCache(name).find("a layer", WAYS) is None


def test_choice_is_for_what_it_was_measured_for(name):
    known = TuningCache(name)
    known.add(("a layer", 3), WAYS, "a third")
    assert known.find(("a layer", 3), WAYS) == "a third"
    assert known.find(("a layer", 4), WAYS) is None
    assert known.find(("a layer", 3), WAYS[:2]) is None


def test_processes_add_to_one_file(name):
    one, other = TuningCache(name), TuningCache(name)
    one.add("a layer", WAYS, "one")
    one.save()
    other.add("another layer", WAYS, "another")
    other.save()
    both = TuningCache(name)
    assert both.find("a layer", WAYS) == "one"
    assert both.find("another layer", WAYS) == "another"


def test_oldest_choices_leave_a_full_file(name, monkeypatch):
    monkeypatch.setattr(tuning_cache, "_MOST", 2)
    for layer in ("first", "second", "third"):
        known = TuningCache(name)
        known.add(layer, WAYS, "one")
        known.save()
    found = [TuningCache(name).find(layer, WAYS) for layer in ("first", "second", "third")]
    assert found == [None, "one", "one"]
