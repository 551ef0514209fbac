"""What users do with an engine: batches, threads, files, and mistakes."""

import collections
import concurrent.futures
import contextlib
import copy
import io
import os
import pickle
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
from helpers import numbers, randomize
from keras import layers
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

from keras_trim.inference import Engine, ForcedTuner, planner
from keras_trim.inference.lowering.tuner import Tuner
from keras_trim.inference.runtime import executor as execution
from keras_trim.storage import FormatError


@pytest.fixture(scope="module")
def model():
    x = keras.Input((12, 12, 3), name="image")
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    y = layers.Add()([layers.DepthwiseConv2D(3, padding="same")(y), y])
    y = layers.BatchNormalization()(layers.Conv2D(16, 3, strides=2)(y))
    y = layers.MaxPooling2D()(y)
    y = layers.Dense(5, activation="softmax")(layers.Flatten()(y))
    return randomize(keras.Model(x, y), 0.8)


@pytest.fixture(scope="module")
def engine(model):
    return Engine(model, num_threads=1)


@pytest.mark.slow
def test_predict_joins_batches(model, engine):
    x = numbers(11, 12, 12, 3)
    np.testing.assert_allclose(
        engine.predict(x, batch_size=4), model.predict(x, verbose=0), rtol=1e-4, atol=1e-6
    )
    assert engine.predict(x[:0]).shape == (0, 5)


def test_calls_from_several_threads(engine):
    inputs = [numbers(1 + i % 3, 12, 12, 3, seed=i) for i in range(24)]
    expected = [engine(x) for x in inputs]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for got, right in zip(pool.map(engine, inputs), expected, strict=True):
            np.testing.assert_array_equal(got, right)


def test_threads_compute_what_one_does(model, engine):
    x = numbers(3, 12, 12, 3)
    for num_threads in (2, 3, 4):
        np.testing.assert_allclose(Engine(model, num_threads)(x), engine(x), rtol=1e-5, atol=1e-7)


class Sleeper:
    """In the place of a `ProgramRunner`: its runs take some seconds, and more to wake up."""

    latest = None  # to have run

    def __init__(self, seconds, to_wake=0.0):
        self.seconds, self.to_wake = seconds, to_wake

    @contextlib.contextmanager
    def execution(self):
        yield self

    def run(self):
        time.sleep(self.seconds + (0 if Sleeper.latest is self else self.to_wake))
        Sleeper.latest = self


def test_the_faster_runner():
    slow, fast = Sleeper(0.003), Sleeper(0.001, to_wake=0.004)
    assert Tuner().faster(slow, fast) is fast
    assert Tuner().faster(fast, slow) is fast
    assert Tuner().time(slow) >= 0.003


def test_one_way_alone_is_not_measured():
    assert Tuner().known(("kind",), ["way"]) == "way"


@pytest.mark.parametrize(("small", "num_threads"), [(60.0, 1), (0.0, 3)])
def test_a_small_network_runs_on_one_thread_if_that_is_faster(
    model, engine, small, num_threads, monkeypatch
):
    monkeypatch.setattr(planner, "SMALL_SECONDS", small)
    monkeypatch.setattr(Tuner, "faster", lambda tuner, alone, together: alone)
    x, on_three = numbers(1, 12, 12, 3), Engine(model, num_threads=3)
    np.testing.assert_allclose(on_three(x), engine(x), rtol=1e-5, atol=1e-7)
    assert on_three.benchmark(x, seconds=0.01).num_threads == num_threads
    assert on_three.summary(x).num_threads == num_threads


def test_summary(engine):
    summary = engine.summary()
    rows = {row.layer: row for row in summary.rows}
    assert not summary.keras_layers
    assert summary.seconds > 0
    dense = next(row for name, row in rows.items() if name.startswith("dense"))
    assert any(row.operation == "Dense" for row in summary.rows), dense
    product = next(row for row in summary.rows if row.operation == "Dense")
    assert product.multiply_adds == 16 * 2 * 2 * 5
    assert product.kept == round(product.multiply_adds * (1 - product.sparsity))
    assert "multiply-adds kept" in str(summary)
    assert engine.benchmark(seconds=0.01).batch_size == 1


def test_what_is_measured_leaves_no_trace_in_layers_with_a_state():
    class Counter(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), trainable=False, initializer="zeros")

        def call(self, x):
            self.count.assign(self.count + 1)
            return keras.ops.sort(x) + self.count

    x = keras.Input(batch_shape=(2, 4))
    model = keras.Model(x, Counter()(x))
    before = float(model.layers[-1].count)
    engine = Engine(model, 1)
    engine.summary()
    assert engine.benchmark(seconds=0.01).batch_size == 2
    assert float(model.layers[-1].count) == before
    engine(numbers(2, 4))
    assert float(model.layers[-1].count) == before + 1


def test_what_is_benchmarked_is_the_call(engine, monkeypatch):
    calls = []

    def call(self, x, original=Engine.__call__):
        calls.append(x.shape)
        return original(self, x)

    monkeypatch.setattr(Engine, "__call__", call)
    result = engine.benchmark(seconds=0.01)
    assert calls == [(1, 12, 12, 3)] * (len(result.times) + 1)


def test_copies(model, engine):
    x = numbers(2, 12, 12, 3)
    for other in (copy.copy(engine), copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert other.num_threads == 1
        np.testing.assert_allclose(other(x), engine(x), rtol=1e-5, atol=1e-7)


def test_copies_keep_the_tuner_and_stay_silent(model):
    x = numbers(2, 12, 12, 3)
    engine = Engine(model, 1, verbose=False, tuner=ForcedTuner(spmm="sparse"))
    for other in (copy.copy(engine), copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert other.verbose is False
        assert [str(line) for line in other.program(x)] == [str(line) for line in engine.program(x)]
        assert other._tuner.names == {"spmm": "sparse"}
    assert copy.copy(Engine(model, 1))._given_tuner is None


def test_a_named_tuple_of_outputs():
    Pair = collections.namedtuple("Pair", ["first", "second"])
    x = keras.Input((4,))
    model = keras.Model(x, Pair(layers.ReLU()(x), layers.Softmax()(x)))
    data = numbers(3, 4)
    got, expected = Engine(model, 1)(data), model.predict_on_batch(data)
    assert type(got) is type(expected)
    np.testing.assert_allclose(got.first, expected[0], rtol=1e-5)
    np.testing.assert_allclose(got.second, expected[1], rtol=1e-5)


def test_keys_that_a_file_would_change_are_an_error(tmp_path):
    x = keras.Input((4,))
    engine = Engine(keras.Model(x, {0: layers.ReLU()(x), 1: layers.Softmax()(x)}), 1)
    assert list(engine(numbers(3, 4))) == [0, 1]
    with pytest.raises(ValueError, match=r"keys .* are strings. Received: \[0, 1\]"):
        engine.save(tmp_path / "model.engine")


def test_saved_and_loaded(engine, tmp_path):
    path = tmp_path / "model.engine"
    engine.save(path)
    x = numbers(2, 12, 12, 3)
    np.testing.assert_allclose(Engine.load(path, 1)(x), engine(x), rtol=1e-5, atol=1e-7)


def test_loads_without_keras(engine, tmp_path):
    path = tmp_path / "model.engine"
    engine.save(path)
    code = (
        "import sys\n"
        "sys.modules['keras'] = None  # importing it fails\n"
        "import numpy as np\n"
        "from keras_trim.inference import Engine\n"
        f"print(Engine.load({str(path)!r}, 1)(np.ones((1, 12, 12, 3), 'float32')).sum())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) == pytest.approx(1, abs=1e-5)


def test_damaged_files_raise_one_error(engine, tmp_path):
    path = tmp_path / "model.engine"
    engine.save(path)
    data = path.read_bytes()
    random = np.random.default_rng(0)
    for cut in random.integers(0, len(data), 20):
        path.write_bytes(data[:cut])
        with pytest.raises(FormatError):
            Engine.load(path)
    for place in random.integers(0, len(data), 40):
        changed = bytearray(data)
        changed[place] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        with pytest.raises(FormatError):
            Engine.load(path)


def test_a_file_of_another_kind():
    with pytest.raises(FormatError, match="no file of keras-trim; a `.keras` archive is read by"):
        Engine.load(io.BytesIO(b"PK" + bytes(100)))


def test_saving_needs_kernels_for_all_layers(tmp_path):
    class Own(layers.Layer):
        def call(self, x):
            return keras.ops.sort(x)

    x = keras.Input((4,))
    engine = Engine(keras.Model(x, Own(name="own")(x)), 1)
    with pytest.raises(ValueError, match="own"):
        engine.save(tmp_path / "model.engine")
    with pytest.raises(ValueError, match=r"must end in `.engine`"):
        engine.save(tmp_path / "model.bin")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((12, 12, 3)), r"x\[None\]"),
        (np.ones((1, 12, 11, 3)), r"shape \(any, 12, 12, 3\).*\(1, 12, 11, 3\)"),
        ({"photo": np.ones((1, 12, 12, 3))}, "'image'.*photo"),
        (np.array(["a"]), "array of numbers.*<U1"),
        (None, "array of numbers.*NoneType"),
        ([[1.0, 2.0], [3.0]], "array of numbers.*a list of lists of different lengths"),
    ],
)
def test_wrong_inputs(engine, x, message):
    with pytest.raises(ValueError, match=message):
        engine(x)


def test_sizes_that_a_layer_refuses():
    x = keras.Input((None, None, 3))
    y = layers.UpSampling2D()(layers.MaxPooling2D()(x))
    engine = Engine(keras.Model(x, layers.Concatenate(name="skip")([x, y])), 1)
    assert engine(numbers(1, 8, 8, 3)).shape == (1, 8, 8, 6)
    message = r"`x` must .* layer 'skip': .* Received: inputs of shapes \[\(1, 9, 9, 3\)\]"
    with pytest.raises(ValueError, match=message):
        engine(numbers(1, 9, 9, 3))


def test_a_declared_batch_size_binds_nobody():
    x = keras.Input(batch_shape=(2, 5, 4))
    model = randomize(keras.Model(x, layers.LSTM(3)(x)))
    data = numbers(5, 5, 4)
    np.testing.assert_allclose(
        Engine(model, 1).predict(data, batch_size=2),
        model.predict(data, batch_size=2, verbose=0),
        rtol=1e-4,
        atol=1e-6,
    )


def test_bfloat16_of_pytorch(engine):
    torch = pytest.importorskip("torch")
    x = torch.ones(1, 12, 12, 3, dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_array_equal(engine(x), engine(np.ones((1, 12, 12, 3))))


def test_integers_of_any_type(model, engine):
    x = numbers(3, 12, 12, 3)
    assert Engine(model, np.int64(1)).num_threads == 1
    np.testing.assert_array_equal(engine.predict(x, np.int64(2)), engine.predict(x, 2))
    np.testing.assert_array_equal(engine.predict(x, None), engine.predict(x))
    for batch_size in (True, 0, 2.0):
        with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
            engine.predict(x, batch_size)


def test_integers_of_more_than_32_bits():
    if keras.backend.backend() == "jax":
        pytest.skip("JAX computes with 32 bits unless it is told otherwise")
    x = keras.Input((2,), dtype="int64")
    engine = Engine(keras.Model(x, x), 1)
    np.testing.assert_array_equal(engine([[-(1 << 31), 5]]), [[-(1 << 31), 5]])
    with pytest.raises(ValueError, match="32 bits.*from 1 to 4294967296"):
        engine([[1, 1 << 32]])
    engine = Engine(keras.Model(x, keras.ops.multiply(x, x)), 1)
    np.testing.assert_array_equal(engine([[3, -5]]), [[9, 25]])
    with pytest.raises(ValueError, match="32 bits.*int64"):
        engine([[3, 1 << 16]])


def test_inputs_that_are_not_real_numbers():
    x = keras.Input((4,), dtype="string")
    with pytest.raises(ValueError, match="must be real numbers.*after those that.*string"):
        Engine(keras.Model(x, x))


def test_inputs_by_name_and_in_lists(engine):
    x = numbers(1, 12, 12, 3)
    np.testing.assert_array_equal(engine({"image": x}), engine(x))
    np.testing.assert_array_equal(engine([x]), engine(x))


def test_products_of_all_time_steps_are_counted():
    x = keras.Input((6, 3))
    model = randomize(keras.Model(x, layers.LSTM(4)(x)), 0.0)
    (row,) = Engine(model, 1).summary(numbers(2, 6, 3)).rows
    assert row.multiply_adds == 2 * 6 * 4 * 4 * (3 + 4)


def test_helpers_that_sleep_are_woken(model, engine):
    x = numbers(1, 12, 12, 3)
    threads = Engine(model, 3)
    for pause in (0, 0.05, 0, 0.05):
        time.sleep(pause)  # longer than helpers look out for work
        np.testing.assert_allclose(threads(x), engine(x), rtol=1e-5, atol=1e-7)


def test_an_interrupted_call_leaves_the_engine_usable(model, engine, monkeypatch):
    x = numbers(1, 12, 12, 3)
    threads = Engine(model, 3)
    threads(x)
    before = threading.active_count()

    def interrupted(*arguments, begin_run=execution.begin_run):
        begin_run(*arguments)
        raise KeyboardInterrupt  # helpers look for work, and the caller has not begun

    with monkeypatch.context() as patch:
        patch.setattr(execution, "begin_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            threads(x)
    np.testing.assert_allclose(threads(x), engine(x), rtol=1e-5, atol=1e-7)
    assert threading.active_count() == before  # the same helpers


@pytest.mark.parametrize("num_threads", [0, -1, 1.5, True])
def test_wrong_number_of_threads(model, num_threads):
    with pytest.raises(ValueError, match="num_threads"):
        Engine(model, num_threads)


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match="built"):
        Engine(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(ValueError, match="Keras model"):
        Engine("model.keras")


def test_a_model_whose_shapes_keras_could_not_note():
    class Untraced(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            if in_symbolic_scope():
                raise RuntimeError("only real numbers, please")
            return self.dense(x)

    model = Untraced()
    model(np.zeros((1, 3), "float32"))
    assert model.built
    with pytest.raises(ValueError, match=r"give the model's class a `build\(self, input_shape\)`"):
        Engine(model)


@pytest.mark.parametrize("tuner", ["sparse", ForcedTuner])
def test_something_in_place_of_a_tuner(model, engine, tuner, tmp_path):
    engine.save(tmp_path / "model.engine")
    with pytest.raises(ValueError, match=r"ForcedTuner\('sparse'\)`. Received: tuner="):
        Engine(model, tuner=tuner)
    with pytest.raises(ValueError, match="`tuner` must be a tuner"):
        Engine.load(tmp_path / "model.engine", tuner=tuner)
