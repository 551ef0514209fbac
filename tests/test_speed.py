"""`bench` on ordinary models and inputs; a runtime that fails is left out with its reason."""

import importlib.util

import keras
import numpy as np
import pytest
from keras import layers

import keras_trim
from keras_trim import timing

BACKEND = keras.backend.backend()
# The runtime whose file this process can make, which takes seconds less than another.
RUNTIME = {"tensorflow": "litert", "torch": "onnxruntime"}.get(BACKEND)
needs_runtime = pytest.mark.skipif(RUNTIME is None, reason="JAX converts no files")


def bench(model, x=None, runtimes=(), **kwargs):
    return keras_trim.bench(model, x, runtimes=runtimes, seconds=0.001, **kwargs)


def small(dtype="float32", name="My Image"):
    return keras.Sequential(
        [keras.Input((4,), dtype=dtype, name=name), layers.Dense(3, dtype=dtype)]
    )


@pytest.mark.slow
@needs_runtime
@pytest.mark.parametrize("x", [np.ones((2, 4)), np.ones((2, 4), "int64"), [[1.0, 2.0, 3.0, 4.0]]])
def test_inputs_of_other_dtypes(x):
    report = bench(small(), x, (RUNTIME,))
    assert not report.left_out
    assert report[RUNTIME].largest_difference < 1e-5
    assert report.batch_size == len(x)


@needs_runtime
def test_a_model_in_low_precision():
    report = bench(small("float16"), None, (RUNTIME,))
    assert RUNTIME not in report.left_out
    assert report[RUNTIME].largest_difference < 0.01


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the converter runs under TensorFlow")
def test_a_file_that_takes_one_example():
    model = keras.Sequential([keras.Input((5, 2)), layers.LSTM(4)])
    report = bench(model, None, ("litert",), batch_size=3)
    assert report["litert"].largest_difference < 1e-5


def test_lists_of_a_subclassed_model():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Subclassed()
    model(np.ones((1, 4)))
    assert bench(model, [[1.0, 2.0, 3.0, 4.0]]).batch_size == 1


def test_a_model_without_weights():
    report = bench(keras.Sequential([keras.Input((4,)), layers.ReLU()]))
    assert (report.sparsity, report.num_bytes) == (0, 0)
    assert report[timing.PREDICT].milliseconds > 0


def test_the_weights_of_a_small_model_have_a_size():
    report = bench(small())
    assert f" {report.num_bytes:,} bytes of weights" in str(report)


def test_a_runtime_that_fails_is_left_out(monkeypatch):
    """Whatever it raises, and whenever."""

    def runner(name, model, num_threads, original=timing.runner):
        if name != "onnxruntime":
            return original(name, model, num_threads)

        def run(x):
            raise RuntimeError("Unexpected input data type\nat line 3")

        return run

    monkeypatch.setattr(timing, "runner", runner)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    report = bench(small(), None, ("onnxruntime",))
    assert report.left_out == {"onnxruntime": "RuntimeError: Unexpected input data type"}
    assert timing.PREDICT in report.to_dict()["milliseconds"]


def test_inputs_that_do_not_match():
    with pytest.raises(ValueError, match=r"must be of shape \(any, 4\)"):
        bench(small(), np.ones((2, 5)))


@pytest.mark.parametrize("name", ["batch_size", "num_threads"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_wrong_numbers(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer. Received: {name}="):
        bench(small(), **{name: value})


def test_a_model_that_the_engine_does_not_run(monkeypatch):
    """The advice does not say to install what is there."""

    def runner(name, model, num_threads, original=timing.runner):
        if name == timing.ENGINE:
            raise ValueError("The engine does not run it.")
        return original(name, model, num_threads)

    monkeypatch.setattr(timing, "runner", runner)
    monkeypatch.setattr(timing, "installed", lambda: [timing.PREDICT, timing.ENGINE])
    report = bench(small())
    assert report.left_out == {timing.ENGINE: "The engine does not run it."}
    assert report.advice.startswith("Run it in model.predict: the engine does not run this model")


def test_an_output_that_is_nan_differs(monkeypatch):
    """Also if it is not the first of several outputs."""

    def runner(name, model, num_threads):
        second = np.full(3, np.nan) if name == timing.BATCH else np.ones(3)
        return lambda x: [np.ones(3), second]

    monkeypatch.setattr(timing, "runner", runner)
    monkeypatch.setattr(timing, "installed", lambda: [timing.PREDICT, timing.BATCH])
    report = bench(small())
    assert report[timing.PREDICT].largest_difference == 0
    assert np.isnan(report[timing.BATCH].largest_difference)


@pytest.mark.parametrize("seconds", ["1", None, -1, float("inf"), float("nan")])
def test_seconds_that_are_none(seconds):
    with pytest.raises(ValueError, match=r"`seconds` must be a number.*Received: seconds="):
        keras_trim.bench(small(), runtimes=(), seconds=seconds)


def test_no_examples():
    with pytest.raises(ValueError, match=r"`x` must hold at least one example.*Received.*\(0, 4\)"):
        bench(small(), np.zeros((0, 4)))
