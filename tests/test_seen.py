"""Logs and warnings report the actual state and its true cause."""

import collections
import warnings

import keras
import numpy as np
import pytest
from conftest import fit, make_mlp, values, zeros

import keras_trim
from keras_trim import ConstantSparsity, PolynomialDecay


class Gan(keras.Model):
    """A GAN with four critic steps per generator step."""

    def __init__(self, generator, critic, container):
        super().__init__()
        self.generator, self.critic, self.built = generator, critic, True
        self.places, self.container = {"generator": 0, "critic": 1}, container

    def compile(self, generator_optimizer, critic_optimizer):
        super().compile()
        self.optimizers = self.container((generator_optimizer, critic_optimizer))

    def _update(self, name, loss):
        optimizer, part = self.optimizers[self.places[name]], getattr(self, name)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                value = loss()
            gradients = tape.gradient(value, part.trainable_variables)
        else:
            part.zero_grad()
            loss().backward()
            gradients = [variable.value.grad for variable in part.trainable_variables]
        optimizer.apply(gradients, part.trainable_variables)

    def train_step(self, data):
        real = data[0] if isinstance(data, (tuple, list)) else data
        noise = keras.ops.ones((4, 8))
        mean = keras.ops.mean
        for _ in range(4):
            self._update(
                "critic", lambda: mean(self.critic(self.generator(noise)) - self.critic(real))
            )
        self._update("generator", lambda: -mean(self.critic(self.generator(noise))))
        return {"g": 0.0}


Pair = collections.namedtuple("Pair", ["generator", "critic"])
CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "dict": lambda pair: dict(enumerate(pair)),
    "named tuple": lambda pair: Pair(*pair),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_model_with_optimizers_of_its_own(container, data):
    if keras.backend.backend() == "jax":
        pytest.skip("a train step with two optimizers is stateless on JAX, without `apply`")
    critic = make_mlp()
    generator = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    gan = Gan(generator, critic, CONTAINERS[container])
    schedule = PolynomialDecay(0.0, 0.5, 0, 60, power=1, frequency=1)
    keras_trim.prune_low_magnitude(critic, schedule)
    gan.compile(keras.optimizers.Adam(), keras_trim.PruningOptimizer("adam"))
    shown = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if "sparsity" in logs:
                zeros = [int((values(layer.kernel) == 0).sum()) for layer in critic.layers]
                shown.append((logs["sparsity"], sum(zeros) / 144))

    callbacks = [keras_trim.UpdatePruningStep(), Spy()]
    gan.fit(np.ones((64, 8), "float32"), batch_size=4, verbose=0, callbacks=callbacks)
    assert len(shown) > 10
    np.testing.assert_allclose(*np.transpose(shown))
    assert zeros(critic) == [64, 8]
    keras_trim.strip_pruning(gan)
    assert isinstance(gan.optimizers[1], keras.optimizers.Adam)
    assert container != "named tuple" or gan.optimizers.critic is gan.optimizers[1]


def test_a_metric_of_the_users_own(data):
    class Sparsity(keras.metrics.Mean):
        def update_state(self, y, y_pred, sample_weight=None):
            super().update_state(7.0)

    model = keras_trim.prune_low_magnitude(make_mlp(), ConstantSparsity(0.5, 0))
    model.compile("adam", "mse", metrics=[Sparsity(name="sparsity")])
    history = fit(model, data).history
    assert history["sparsity"] == [7.0, 7.0]
    assert history["weight_sparsity"] == [0.5, 0.5]


def test_an_optimizer_that_is_set_late():
    model = keras_trim.prune_low_magnitude(make_mlp(), ConstantSparsity(0.5, 0))
    callback = keras_trim.UpdatePruningStep()
    callback.set_model(model)
    model.optimizer = keras.optimizers.SGD()
    callback.on_train_begin()
    assert isinstance(model.optimizer, keras_trim.PruningOptimizer)


def test_a_zero_by_chance_is_no_revival(data):
    model = keras_trim.prune_low_magnitude(make_mlp(), PolynomialDecay(0.0, 0.5, 0, 8, frequency=1))
    kernel = values(model.layers[0].kernel).copy()
    kernel[0, 0] = 0
    model.layers[0].kernel.assign(kernel)
    model.compile("sgd", "mse")
    fit(model, data)  # warnings are errors


def told_in_fit(model, data):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        fit(model, data)
    return [str(each.message)[:22] for each in told if each.category is UserWarning]


def test_a_problem_is_told_once_per_fit(data):
    model = keras_trim.prune_low_magnitude(make_mlp(), ConstantSparsity(0.5, 0))
    model.compile("adam", "mse")
    initial = model.get_weights()
    fit(model, data)
    for _ in range(2):
        model.set_weights(initial)
        model.optimizer.iterations.assign(8)  # the step does not tell one `fit` from the next
        assert told_in_fit(model, data) == ["2 weights are not zero"]
    keras_trim.strip_pruning(model)
    keras_trim.prune_low_magnitude(model, PolynomialDecay(0.0, 0.5, 0, 8, frequency=1))
    model.compile("adam", "mse")
    assert told_in_fit(model, data) == ["2 weights are sparser "]


def test_weights_that_were_replaced_between_folds(data):
    model = make_mlp()
    initial = model.get_weights()
    keras_trim.prune_low_magnitude(model, ConstantSparsity(0.5, 0))
    model.compile("adam", "mse")
    fit(model, data)
    model.set_weights(initial)
    with pytest.warns(UserWarning, match="2 weights are not zero where.*set_weights.*compile"):
        fit(model, data)
    model.set_weights(initial)
    model.compile("adam", "mse")
    fit(model, data)  # does what the warning says
    assert zeros(model) == [64, 8]


def test_marked_in_the_middle_of_training(data):
    model = make_mlp()
    model.compile("adam", "mse")
    model.fit(*data, batch_size=16, verbose=0)
    keras_trim.prune_low_magnitude(model, PolynomialDecay(0.0, 0.5, 0, 8, power=1, frequency=2))
    shown = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            shown.append((logs["sparsity"], zeros(self.model)[0] / 128))

    match = "began at step 0, but the optimizer is at step 4 already: 25% .*again"
    with pytest.warns(UserWarning, match=match):
        fit(model, data, epochs=1, callbacks=[Spy()])
    np.testing.assert_allclose(*np.transpose(shown))


@pytest.mark.parametrize(
    "schedule", [ConstantSparsity(0.5, 8), PolynomialDecay(0.0, 0.5, 0, 8, frequency=100)]
)
def test_a_jump_at_the_last_step(schedule, data):
    model = keras_trim.prune_low_magnitude(make_mlp(), schedule)
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="from 0% to 50% zeros at step 8, the last.*recover"):
        fit(model, data)
