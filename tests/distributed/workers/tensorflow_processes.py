"""Two processes of TensorFlow under `MultiWorkerMirroredStrategy`."""

import collections
import json
import os
import sys

RANK, WORKERS = int(sys.argv[1]), sys.argv[2].split(",")
os.environ["TF_CONFIG"] = json.dumps(
    {"cluster": {"worker": WORKERS}, "task": {"type": "worker", "index": RANK}}
)

import tensorflow as tf

STRATEGY = tf.distribute.MultiWorkerMirroredStrategy()  # comes first: it needs a fresh runtime

import common
import keras
import numpy as np

import keras_trim


def per_replica(values):
    return STRATEGY.experimental_distribute_values_from_function(
        lambda context: values[context.replica_id_in_sync_group]
    )


def train(is_marked, epochs=common.EPOCHS):
    """A custom loop. Returns the model, the losses, and the compiled step."""
    with STRATEGY.scope():
        model = common.make_model(is_marked)
        optimizer = keras.optimizers.Adam(0.01)
        if is_marked:
            optimizer = keras_trim.PruningOptimizer(optimizer)
        optimizer.build(model.trainable_variables)

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((model(x) - y) ** 2) / (common.BATCH * common.TARGETS)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    @tf.function
    def run(x, y):
        return STRATEGY.reduce("SUM", STRATEGY.run(step, args=(x, y)), axis=None)

    losses = []
    for i in range(epochs * 4):
        rows = slice(i % 4 * common.BATCH, (i % 4 + 1) * common.BATCH)
        x, y = tf.split(common.X[rows], 2), tf.split(common.Y[rows], 2)
        losses.append(float(run(per_replica(x), per_replica(y))))
    return model, optimizer, np.mean(np.reshape(losses, (epochs, 4)), axis=1), run


def gathered(array):
    """Returns the values of both processes."""

    @tf.function
    def gather():
        return STRATEGY.gather(STRATEGY.run(lambda: tf.constant(array[None])), axis=0)

    return gather().numpy()


def by_optimizer():
    model, optimizer, losses, _ = train(is_marked=True)
    common.assert_exact(model)
    # The same in one process, without a strategy.
    alone = common.make_model()
    expected = common.fit(alone, jit_compile=False)
    common.assert_close(losses, expected)
    common.assert_close(common.kernels(model), common.kernels(alone))
    for weight, other in zip(optimizer.pruned_weights, alone.optimizer.pruned_weights, strict=True):
        np.testing.assert_array_equal(weight.mask.numpy(), other.mask.numpy())
        for variable in (weight.mask, weight.variable):
            one, other_process = gathered(variable.numpy().astype("float32"))
            np.testing.assert_array_equal(one, other_process)


def nothing_is_reduced_but_gradients():
    def reductions(is_marked):
        *_, run = train(is_marked, epochs=1)
        x = per_replica(tf.split(common.X[: common.BATCH], 2))
        y = per_replica(tf.split(common.Y[: common.BATCH], 2))
        graph = run.get_concrete_function(x, y).graph.as_graph_def()
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        return collections.Counter(n.op for n in nodes if n.op.startswith("Collective"))

    dense, pruned = reductions(False), reductions(True)
    assert dense
    assert pruned == dense, (dense, pruned)


def what_fails_without_pruning_too():
    errors = []
    for is_marked in (False, True):
        with STRATEGY.scope():
            model = common.make_model(is_marked)
            model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
        try:
            common.run_fit(model, "callback" if is_marked else "dense")
        except Exception as error:
            errors.append(type(error))
    assert len(errors) == 2, "Keras runs it by now: say so in docs/distributed.md"
    assert errors[0] is errors[1], errors


if __name__ == "__main__":
    common.serve([by_optimizer, nothing_is_reduced_but_gradients, what_fails_without_pruning_too])
