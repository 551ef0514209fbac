import atexit
import functools
import gc
import os
import shutil
import tempfile
from collections import Counter

import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state
from xla_flags import COMPILE_SOON

import keras_trim
from keras_trim.inference import ForcedTuner
from keras_trim.inference import engine as engine_module
from keras_trim.inference.lowering import tuner as tuner_module
from keras_trim.inference.lowering.tuning_cache import TuningCache

# Tests of results inside a compiled training step, which optimizations change.
OPTIMIZED = (
    "test_optimizer",
    "test_patterns",
    "test_pruner",
    "test_pruning",
    "test_saving",
    "test_selection",
)

# JAX compiles the same program anew for each model. With a cache, tests and the processes that they
# start compile it once. Each process that runs tests has a folder of its own, because JAX does not
# replace files atomically.
COMPILATION_CACHE = {
    "jax_compilation_cache_dir": tempfile.mkdtemp(),
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def _cache_programs():
    atexit.register(shutil.rmtree, COMPILATION_CACHE["jax_compilation_cache_dir"], True)
    for name, value in COMPILATION_CACHE.items():
        os.environ[name.upper()] = str(value)
        if keras.backend.backend() == "jax":
            import jax

            jax.config.update(name, value)


_cache_programs()

# PyTorch compiles nothing, so its suite is the fastest.
IS_ONE_BACKEND = keras.backend.backend() == "torch"
ONE_BACKEND = "does not depend on the backend: runs on PyTorch only"
# Exports that TensorFlow and PyTorch cover: JAX leaves both formats to a process with another
# backend, as PyTorch does with LiteRT and TensorFlow with ONNX. test_runtimes.py runs on each.
CONVERTED = ("test_cases", "test_failures", "test_preparation", "test_recurrence")
NOT_ON_JAX = "JAX exports in a process with another backend: runs on TensorFlow and PyTorch"


def pytest_collection_modifyitems(items):
    """Below the importer, a graph is the same whatever the backend of its model was.

    inference/frontend/, test_engine_layers.py and test_random_models.py run on each backend.
    """
    below = {"ir", "kernels", "lowering", "program", "runtime"}
    for item in items:
        if item.path.parent.name in below and not IS_ONE_BACKEND:
            item.add_marker(pytest.mark.skip(reason=ONE_BACKEND))
        is_export = item.path.parent.name == "exporters" and item.path.stem in CONVERTED
        if is_export and keras.backend.backend() == "jax":
            item.add_marker(pytest.mark.skip(reason=NOT_ON_JAX))


@pytest.fixture
def one_backend():
    """Runs a test on one backend only, because backends do not matter to it."""
    if not IS_ONE_BACKEND:
        pytest.skip(ONE_BACKEND)


def _layer_names():
    """Returns Keras's count of the layers of each automatic name."""
    return global_state.get_global_attribute("object_name_uids", {})


@pytest.fixture(scope="session")
def _names_of_parameters():
    """Counts after all test files were imported, which makes the layers that are parameters."""
    return Counter(_layer_names())


@pytest.fixture(autouse=True)
def _reset_keras(_names_of_parameters):
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    # Whoever clears Keras's session, be it a fixture of a whole module, restarts the counts at 0:
    # new layers would be named as parameters are, and a model accepts each name only once.
    largest = Counter(_layer_names()) | _names_of_parameters
    global_state.set_global_attribute("object_name_uids", largest)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module", autouse=True)
def _keep_collections_fast():
    """Hides what earlier files left behind from the garbage collector.

    Backends and Keras keep what they traced: millions of objects in the end. Each
    `keras.utils.clear_session()` would visit all of them, which takes seconds.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _choose_anew(monkeypatch):
    """Engines neither use choices of other tests nor leave their own, some of which are forced.

    They also skip emptying caches before each measured run.
    """
    monkeypatch.setattr(TuningCache, "of_this_machine", classmethod(lambda cls: cls()))
    monkeypatch.setattr(tuner_module, "EVICTED", 16)


@pytest.fixture
def force_kernels(monkeypatch):
    """Function, as `ForcedTuner`: engines take such kernels, even if others are faster here.

    It returns the `ForcedTuner`.
    """

    def force(default="", **names):
        tuner = ForcedTuner(default, **names)
        monkeypatch.setattr(engine_module, "Tuner", lambda cache: tuner)
        return tuner

    return force


@pytest.fixture(autouse=True)
def _compile_soon(request, monkeypatch):
    """On JAX, these tests spend most of their time compiling programs that run once."""
    if keras.backend.backend() != "jax" or request.path.stem in OPTIMIZED:
        yield
        return
    import jax

    jax.devices()  # from here on, the variable only affects processes that tests start
    monkeypatch.setenv("XLA_FLAGS", COMPILE_SOON)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def _draw_soon(request, monkeypatch):
    """Draws initial weights with NumPy, because JAX compiles a program for each shape."""
    if keras.backend.backend() != "jax" or request.path.stem == "test_as_keras":
        return  # these tests need the same noise inside and outside of compiled programs
    import jax

    def by_numpy(draw, draw_by_jax):
        def wrapper(key, shape=(), dtype=float, **kwargs):
            if isinstance(key, jax.core.Tracer):
                return draw_by_jax(key, shape, dtype, **kwargs)
            drawn = draw(np.random.default_rng(np.asarray(key)), shape, **kwargs)
            return jax.numpy.asarray(drawn.astype(dtype), dtype)

        return wrapper

    def uniform(generator, shape, minval=0.0, maxval=1.0):
        return generator.uniform(minval, maxval, shape)

    def normal(generator, shape):
        return generator.standard_normal(shape)

    def truncated_normal(generator, shape, lower, upper):
        return generator.standard_normal(shape).clip(lower, upper)

    for draw in (uniform, normal, truncated_normal):
        draw_by_jax = getattr(jax.random, draw.__name__)
        monkeypatch.setattr(jax.random, draw.__name__, by_numpy(draw, draw_by_jax))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def data(rng):
    """Regression data: 64 samples of 8 features, 1 target."""
    x = rng.standard_normal((64, 8)).astype("float32")
    return x, (x @ rng.standard_normal((8, 1))).astype("float32")


@pytest.fixture
def mlp():
    """Two kernels: 8x16 and 16x1."""
    return make_mlp()


def make_mlp(**dense):
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu", name="hidden", **dense),
            keras.layers.Dense(1, name="out", **dense),
        ]
    )


def fit(model, data, epochs=2, batch_size=16, callbacks=(), **kwargs):
    """Trains with pruning attached: 4 steps per epoch on `data`."""
    return model.fit(
        *data,
        epochs=epochs,
        batch_size=batch_size,
        verbose=0,
        callbacks=[keras_trim.UpdatePruningStep(), *callbacks],
        **kwargs,
    )


def step_alone(optimizer, model, count=1):
    """Takes compiled steps in a loop of its own, with gradients of ones."""
    variables = model.trainable_variables
    gradients = [keras.ops.ones(variable.shape) for variable in variables]
    if keras.backend.backend() == "jax":
        import jax

        step = jax.jit(optimizer.stateless_apply)
        weights, state = [[v.value for v in each] for each in (variables, optimizer.variables)]
        for _ in range(count):
            weights, state = step(state, gradients, weights)
        new = zip([*variables, *optimizer.variables], [*weights, *state], strict=True)
        for variable, value in new:
            variable.assign(value)
        return
    step = functools.partial(optimizer.apply, gradients, variables)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        step = tf.function(step, autograph=False)
    for _ in range(count):
        step()


def zeros(model):
    """Lists the zeros of each pruned weight, in order."""
    return [row.zeros for row in keras_trim.sparsity_report(model).pruned_rows]


def values(variable):
    return keras.ops.convert_to_numpy(variable)
