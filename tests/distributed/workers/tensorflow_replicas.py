"""One TensorFlow process with four devices, under strategies that replicate a model on them."""

import collections
import contextlib
import inspect
import sys
import tempfile

import tensorflow as tf

DEVICES = [f"CPU:{i}" for i in range(4)]
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration() for _ in DEVICES],
)

import common
import keras
import numpy as np

import keras_trim
from tests import oracle

ONE = tf.distribute.OneDeviceStrategy(DEVICES[1])
TWO = tf.distribute.MirroredStrategy(DEVICES[:2])
FOUR = tf.distribute.MirroredStrategy(DEVICES)


def train(strategy, how="callback", fit_inside=False, model=None, **arguments):
    """Makes and compiles a model in the scope, and trains it there or outside."""
    # Without XLA, whose programs cannot reach variables of another virtual device.
    arguments = {"jit_compile": False, **arguments}
    with contextlib.ExitStack() as stack:
        if strategy is not None:
            stack.enter_context(strategy.scope())
        model = (model or common.make_model)(is_marked=how != "dense")
        optimizer = arguments.pop("optimizer", {"learning_rate": 0.01})
        optimizer = keras.optimizers.Adam(**optimizer)
        if how == "optimizer":
            optimizer = keras_trim.PruningOptimizer(optimizer)
        model.compile(optimizer, "mse", **arguments)
        if fit_inside:
            return model, common.run_fit(model, how)
    return model, common.run_fit(model, how)


ALONE, LOSSES = train(None)
MASKS = [weight.mask.numpy() for weight in ALONE.optimizer.pruned_weights]


def replicas(strategy, variable):
    values = strategy.experimental_local_results(variable.value)
    assert len(values) == strategy.num_replicas_in_sync
    return [value.numpy() for value in values]


def _check(strategy, how, **arguments):
    model, losses = train(strategy, how, **arguments)
    common.assert_exact(model)
    common.assert_close(losses, LOSSES)
    common.assert_close(common.kernels(model), common.kernels(ALONE))
    for weight, mask in zip(model.optimizer.pruned_weights, MASKS, strict=True):
        for replica in replicas(strategy, weight.mask):
            np.testing.assert_array_equal(replica, mask)
        first, *others = replicas(strategy, weight.variable)
        for other in others:
            np.testing.assert_array_equal(other, first)
        devices = [v.device for v in strategy.experimental_local_results(weight.mask.value)]
        expected = strategy.experimental_local_results(weight.variable.value)
        assert devices == [value.device for value in expected]


def one_device_outside_of_the_scope():
    _check(ONE, "callback")
    _check(ONE, "callback", steps_per_execution=2)


def two_replicas_inside_of_the_scope():
    _check(TWO, "callback", fit_inside=True)


def two_replicas_outside_of_the_scope():
    _check(TWO, "callback")


def four_replicas_by_optimizer():
    _check(FOUR, "optimizer")


def four_replicas_eagerly():
    _check(FOUR, "callback", run_eagerly=True)


def checkpoints():
    """An interrupted run ends like an uninterrupted one, bit for bit, on each replica."""

    def compiled():
        keras.utils.clear_session()  # the same names as those of the run before
        with TWO.scope():
            model = common.make_model()
            model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
        return model

    with tempfile.TemporaryDirectory() as folder:
        model, losses = common.fit_resumed(compiled, folder)
    uninterrupted = compiled()
    common.assert_equal(losses, common.run_fit(uninterrupted))
    common.assert_exact(model)
    for mine, theirs in zip(
        [*model.variables, *model.optimizer.variables],
        [*uninterrupted.variables, *uninterrupted.optimizer.variables],
        strict=True,
    ):
        common.assert_equal(replicas(TWO, mine), replicas(TWO, theirs))


def unbuilt_model():
    """Its optimizer is built within the first step."""

    class Unbuilt(keras.Model):
        def __init__(self):
            super().__init__()
            self.all = [keras.layers.Dense(common.HIDDEN), keras.layers.Dense(common.TARGETS)]

        def call(self, x):
            return self.all[1](self.all[0](x))

    def make(is_marked):
        keras.utils.set_random_seed(0)
        model = Unbuilt()
        schedule = keras_trim.PolynomialDecay(0.0, 0.5, 0, 6, frequency=2)
        return keras_trim.prune_low_magnitude(model, schedule) if is_marked else model

    for how in ("callback", "optimizer"):
        model, losses = train(TWO, how, model=make)
        common.assert_exact(model)
        common.assert_close(losses, LOSSES)


def masks_are_those_of_one_device():
    schedule = keras_trim.ConstantSparsity(0.5, 0, frequency=1)
    with FOUR.scope():
        model = common.make_model(schedule=schedule)
        before = common.kernels(model)
        model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    common.run_fit(model)
    weights = model.optimizer.pruned_weights
    for kernel, weight, zeros in zip(before, weights, common.ZEROS, strict=True):
        for replica in replicas(FOUR, weight.mask):
            np.testing.assert_array_equal(replica, oracle.keep_largest(kernel, zeros))


def custom_loop():
    def step(x, y, model, optimizer):
        with tf.GradientTape() as tape:
            error = tf.reduce_sum((model(x) - y) ** 2) / (common.BATCH * common.TARGETS)
        variables = model.trainable_variables
        gradients = tape.gradient(error, [v.value for v in variables])
        optimizer.apply(gradients, variables)
        return error

    with TWO.scope():
        model = common.make_model()
        optimizer = keras_trim.PruningOptimizer(keras.optimizers.Adam(0.01))
        optimizer.build(model.trainable_variables)

    @tf.function
    def run(x, y):
        errors = TWO.run(step, args=(x, y, model, optimizer))
        return TWO.reduce("SUM", errors, axis=None)

    losses = []
    for i in range(common.STEPS):
        rows = slice(i % 4 * common.BATCH, (i % 4 + 1) * common.BATCH)
        x, y = tf.split(common.X[rows], 2), tf.split(common.Y[rows], 2)

        def per_replica(values):
            return TWO.experimental_distribute_values_from_function(
                lambda context: values[context.replica_id_in_sync_group]
            )

        losses.append(float(run(per_replica(x), per_replica(y))))
    common.assert_exact(model)
    common.assert_close([np.mean(losses[:4]), np.mean(losses[4:])], LOSSES)


def nothing_is_reduced_but_gradients():
    def reductions(how):
        model, _ = train(FOUR, how)
        # Keras returns a Python function that wraps the compiled one.
        compiled = inspect.getclosurevars(model.train_function).nonlocals["multi_step_on_iterator"]
        (function, *_) = compiled._list_all_concrete_functions()
        graph = function.graph.as_graph_def()
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        kinds = ("AddN", "Collective", "Nccl")
        return collections.Counter(n.op for n in nodes if n.op.startswith(kinds)), len(nodes)

    dense, dense_size = reductions("dense")
    pruned, pruned_size = reductions("callback")
    assert dense
    assert pruned == dense, (dense, pruned)
    assert pruned_size > dense_size


def error_of(how, **arguments):
    try:
        train(TWO, how, **arguments)
    except Exception as error:
        return type(error)
    return None


def what_fails_without_pruning_too():
    for arguments in (
        {"steps_per_execution": 2},
        {"jit_compile": True},
        {"optimizer": {"gradient_accumulation_steps": 2}},
        {"optimizer": {"use_ema": True, "ema_overwrite_frequency": 3}},
    ):
        dense = error_of("dense", **arguments)
        assert dense is not None, f"Keras runs it by now: {arguments}"
        assert error_of("callback", **arguments) is dense, arguments


# Each number of replicas needs its own process: TensorFlow's groups of devices have keys that
# start at 1 in each strategy, and the first group to use a key fixes its size.
CHECKS = {
    "2": [
        one_device_outside_of_the_scope,
        two_replicas_inside_of_the_scope,
        two_replicas_outside_of_the_scope,
        checkpoints,
        unbuilt_model,
        custom_loop,
        what_fails_without_pruning_too,
    ],
    "4": [
        four_replicas_by_optimizer,
        four_replicas_eagerly,
        masks_are_those_of_one_device,
        nothing_is_reduced_but_gradients,
    ],
}

if __name__ == "__main__":
    common.serve(CHECKS[sys.argv[1]])
