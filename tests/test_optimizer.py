import itertools

import keras
import numpy as np
import oracle
import pytest
from conftest import fit, make_mlp, step_alone, values, zeros
from keras import ops

import keras_trim
from keras_trim import ConstantSparsity, PolynomialDecay, PruningOptimizer

OPTIMIZERS = sorted(
    name
    for name, value in vars(keras.optimizers).items()
    if isinstance(value, type)
    and issubclass(value, keras.optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
)


class Recorder(keras.callbacks.Callback):
    """Records the zeros of the pruned kernels after each step."""

    def __init__(self):
        super().__init__()
        self.zeros = []

    def on_train_batch_end(self, batch, logs=None):
        kernels = [layer.kernel for layer in self.model.layers]
        self.zeros.append([int(np.count_nonzero(values(kernel) == 0)) for kernel in kernels])


def marked(schedule, **dense):
    return keras_trim.prune_low_magnitude(make_mlp(**dense), schedule)


def step(model, optimizer, gradients):
    """Takes one optimizer step, as a custom loop does."""
    gradients = [ops.convert_to_tensor(gradient) for gradient in gradients]
    optimizer.apply(gradients, model.trainable_variables)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name, data):
    model = marked(ConstantSparsity(0.5, 0, frequency=3))
    model.compile(getattr(keras.optimizers, name)(learning_rate=0.01), "mse")
    recorder = Recorder()
    fit(model, data, callbacks=[recorder])
    assert recorder.zeros == [[64, 8]] * 8


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer"
)
def test_multi_optimizer(data):
    model = marked(ConstantSparsity(0.5, 0, frequency=3))
    kernels = keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=2)
    biases = keras.optimizers.SGD(0.01)
    model.compile(
        keras.optimizers.MultiOptimizer(lambda v: kernels if v.name == "kernel" else biases), "mse"
    )
    recorder = Recorder()
    fit(model, data, callbacks=[recorder])
    assert recorder.zeros == [[64, 8]] * 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"weight_decay": 0.1},
        {"clipnorm": 0.1},
        {"clipvalue": 0.1},
        {"global_clipnorm": 0.1},
        {"use_ema": True},
        {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
        {"loss_scale_factor": 8.0},
    ],
    ids=lambda arguments: "-".join(arguments),
)
def test_options_of_the_inner_optimizer(arguments, data):
    model = marked(ConstantSparsity(0.5, 0, frequency=3))
    model.compile(keras.optimizers.AdamW(**{"learning_rate": 0.01, **arguments}), "mse")
    recorder = Recorder()
    fit(model, data, callbacks=[recorder])
    assert recorder.zeros == [[64, 8]] * 8
    assert zeros(model) == [64, 8]  # at its end, `fit` overwrites weights with their averages


def test_constraints_come_before_the_mask(data):
    class Shift(keras.constraints.Constraint):
        def __call__(self, w):
            return w + 1.0

    model = marked(ConstantSparsity(0.5, 0, frequency=3), kernel_constraint=Shift())
    model.compile("sgd", "mse")
    recorder = Recorder()
    fit(model, data, callbacks=[recorder])
    assert recorder.zeros == [[64, 8]] * 8


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_precision(policy, data):
    keras.config.set_dtype_policy(policy)
    model = marked(ConstantSparsity(0.5, 0, frequency=3))
    model.compile(keras.optimizers.Adam(0.01, use_ema=True), "mse")
    recorder = Recorder()
    # The scale of float16 starts so high that the first steps may be skipped.
    fit(model, data, epochs=4, callbacks=[recorder])
    assert recorder.zeros[-1] == [64, 8]
    is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == (policy == "mixed_float16")


@pytest.mark.slow
@pytest.mark.parametrize(
    "execution",
    [{"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": "auto"}, {"jit_compile": True}],
    ids=str,
)
def test_execution(execution, data):
    model = marked(PolynomialDecay(0.0, 0.5, 1, 6, power=1, frequency=2))
    model.compile(keras.optimizers.SGD(0.1), "mse", **execution)
    recorder = Recorder()
    fit(model, data, callbacks=[recorder])
    # Updates at 1 (sparsity 0), 3 (0.2), 5 (0.4) and 6 (0.5).
    expected = [0, 0, 0.2, 0.2, 0.4, 0.5, 0.5, 0.5]
    assert recorder.zeros == [[round(128 * s), round(16 * s)] for s in expected]


@pytest.mark.parametrize("begin_step", [0, 1, 3])
def test_updates_at_begin_every_frequency_and_end(begin_step, data):
    model = marked(PolynomialDecay(0.25, 0.75, begin_step, 7, power=1, frequency=3))
    model.compile("sgd", "mse")
    recorder = Recorder()
    fit(model, data, callbacks=[recorder])
    schedule = PolynomialDecay(0.25, 0.75, begin_step, 7, power=1, frequency=3)
    expected, sparsity = [], 0.0
    for after in range(1, 9):
        due, asked = schedule(after)
        if due:
            sparsity = asked
        elif after == 1 and begin_step == 0:
            sparsity = schedule(0)[1]
        expected.append([round(128 * sparsity), round(16 * sparsity)])
    assert recorder.zeros == expected


def test_gradient_accumulation_counts_updates_of_the_weights(data):
    model = marked(PolynomialDecay(0.0, 0.5, 0, 4, power=1, frequency=1))
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model.compile(optimizer, "mse")
    recorder = Recorder()
    fit(model, data, callbacks=[recorder])
    assert [row[0] for row in recorder.zeros] == [0, 16, 16, 32, 32, 48, 48, 64]


def test_masks_equal_the_oracle_on_every_step(rng):
    """With the same weights and gradients, every backend must give the masks of NumPy's sort."""
    model = marked(PolynomialDecay(0.1, 0.9, 0, 6, frequency=2))
    optimizer = PruningOptimizer(keras.optimizers.SGD(0.5))
    optimizer.build(model.trainable_variables)
    schedule = PolynomialDecay(0.1, 0.9, 0, 6, frequency=2)
    kernel = values(model.layers[0].kernel).astype("float32").copy()
    mask = np.ones_like(kernel, bool)
    for after in range(1, 9):
        gradients = [
            (rng.integers(-8, 8, variable.shape) / 16).astype("float32")
            for variable in model.trainable_variables
        ]
        step(model, optimizer, gradients)
        kernel = kernel - np.float32(0.5) * gradients[0]  # pruned weights move, too
        due, sparsity = schedule(after)
        if after == 1:
            due, sparsity = schedule(0)
        if due:
            mask = oracle.keep_largest(kernel, round(kernel.size * sparsity))
        kernel = np.where(mask, kernel, np.float32(0))
        np.testing.assert_array_equal(values(model.layers[0].kernel), kernel)
        np.testing.assert_array_equal(values(optimizer.pruned_weights[0].mask), mask)
        assert not np.signbit(kernel[~mask]).any()


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="a path of JAX")
@pytest.mark.parametrize(("platform", "loops"), [("cpu", 2), ("gpu", 1)])
def test_compiled_steps_of_a_platform(platform, loops, rng, monkeypatch):
    """On a GPU, one loop makes all masks because the host waits for each loop. Same masks."""
    import jax

    monkeypatch.setattr("keras_trim.backend.jax._platform", lambda: platform)
    schedule = PolynomialDecay(0.1, 0.9, 1, 6, frequency=2)
    model = marked(schedule)
    optimizer = PruningOptimizer(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5))
    optimizer.build(model.trainable_variables)
    state = [variable.value for variable in optimizer.variables]
    trainable = [variable.value for variable in model.trainable_variables]
    step = jax.make_jaxpr(optimizer.stateless_apply)(state, trainable, trainable)
    assert [equation.primitive.name for equation in step.eqns].count("while") == loops
    kernels = [np.array(value) for value in trainable]
    masks = [np.ones_like(kernel, bool) for kernel in kernels]
    compiled = jax.jit(optimizer.stateless_apply)
    for after in range(1, 9):
        gradients = [(rng.integers(-8, 8, k.shape) / 16).astype("float32") for k in kernels]
        trainable, state = compiled(state, gradients, trainable)
        due, sparsity = schedule(after)
        for i in (0, 2):
            kernels[i] = kernels[i] - np.float32(0.5) * gradients[i]
            if due:
                masks[i] = oracle.keep_largest(kernels[i], round(kernels[i].size * sparsity))
            kernels[i] = np.where(masks[i], kernels[i], np.float32(0))
            np.testing.assert_array_equal(trainable[i], kernels[i])
    for variable, value in zip(optimizer.variables, state, strict=True):
        variable.assign(value)
    for weight in optimizer.pruned_weights:
        np.testing.assert_array_equal(values(weight.mask), masks[weight.index])
        average = optimizer._moving_averages()[id(weight.variable)]
        assert not values(average)[~masks[weight.index]].any()


def test_pruned_positions_hide_no_nan_and_are_positive_zero(mlp):
    keras_trim.prune_low_magnitude(mlp, ConstantSparsity(0.5, 0, end_step=0))
    optimizer = PruningOptimizer(keras.optimizers.SGD(1.0))
    gradients = [np.zeros(variable.shape, "float32") for variable in mlp.trainable_variables]
    step(mlp, optimizer, gradients)
    mask = values(optimizer.pruned_weights[0].mask)
    gradients[0] = np.where(mask, 0.0, np.nan).astype("float32")
    kept = tuple(np.argwhere(mask)[0])
    gradients[0][kept] = np.nan
    step(mlp, optimizer, gradients)
    kernel = values(mlp.layers[0].kernel)
    assert np.isnan(kernel[kept])  # a NaN that is kept stays visible
    assert np.isnan(kernel).sum() == 1
    assert (kernel[~mask] == 0).all()
    assert not np.signbit(kernel[~mask]).any()


def test_nan_weights_are_kept():
    model = marked(ConstantSparsity(0.5, 0))
    kernel = values(model.layers[0].kernel).copy()
    kernel[0] = np.nan
    model.layers[0].kernel.assign(kernel)
    optimizer = PruningOptimizer(keras.optimizers.SGD(0.0))
    step(model, optimizer, [np.zeros(v.shape, "float32") for v in model.trainable_variables])
    kernel = values(model.layers[0].kernel)
    assert np.isnan(kernel[0]).all()
    assert np.count_nonzero(kernel == 0) == 64


def test_a_pruned_weight_may_come_back():
    model = marked(ConstantSparsity(0.5, 0, frequency=1))
    optimizer = PruningOptimizer(keras.optimizers.SGD(1.0))
    gradients = [np.zeros(variable.shape, "float32") for variable in model.trainable_variables]
    step(model, optimizer, gradients)
    pruned = tuple(np.argwhere(~values(optimizer.pruned_weights[0].mask))[0])
    gradients[0][pruned] = -9.0
    step(model, optimizer, gradients)
    assert values(model.layers[0].kernel)[pruned] == 9.0
    assert zeros(model) == [64, 8]


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        {"block_size": (4, 4)},
        {"block_size": (3, 5), "block_pooling_type": "MAX"},
        {"sparsity_m_by_n": (2, 4)},
    ],
    ids=lambda pattern: "-".join(pattern),
)
def test_structured_patterns_in_training(pattern, data):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Reshape((4, 2, 1)),
            keras.layers.Conv2D(8, (2, 1), activation="relu"),
            keras.layers.Conv2D(8, (3, 2), activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(8),
        ]
    )
    convolution, dense = model.layers[2], model.layers[4]
    schedule = PolynomialDecay(0.0, 0.5, 0, 6, frequency=2)
    keras_trim.prune_low_magnitude([convolution, dense], schedule, **pattern)
    model.compile("adam", "mse")
    fit(model, data)
    for layer in (convolution, dense):
        mask = values(layer.kernel) != 0
        spec = next(w.spec for w in model.optimizer.pruned_weights if w.variable is layer.kernel)
        assert (~mask).sum() >= spec.target_zeros > 0
        matrix = mask.reshape((-1, *mask.shape[-2:]))
        if "sparsity_m_by_n" in pattern:
            for start in range(0, 8, 4):
                assert (matrix[:, start : start + 4].sum(1) == 2).all()
        else:
            height, width = pattern["block_size"]
            for i, j in itertools.product(range(0, 8, height), range(0, 8, width)):
                block = matrix[:, i : i + height, j : j + width]
                assert (block.all((1, 2)) | ~block.any((1, 2))).all()


def test_schedules_of_different_layers(data):
    model = make_mlp()
    keras_trim.prune_low_magnitude(model.layers[0], ConstantSparsity(0.25, 2, frequency=2))
    keras_trim.prune_low_magnitude(model.layers[1], PolynomialDecay(0.0, 0.5, 0, 4, frequency=1))
    model.compile("sgd", "mse")
    recorder = Recorder()
    fit(model, data, callbacks=[recorder])
    assert [row[0] for row in recorder.zeros] == [0] + [32] * 7
    assert [row[1] for row in recorder.zeros][3:] == [8] * 5


@keras.saving.register_keras_serializable(package="tests")
class Stairs(keras_trim.PruningSchedule):
    """A user's schedule whose sparsity is only known as a tensor."""

    final_sparsity = 0.5

    def __call__(self, step):
        sparsity = ops.minimum(ops.cast(step, "float32") * 0.125, self.final_sparsity)
        return ops.equal(ops.mod(step, 2), 0), sparsity

    def get_config(self):
        return {}


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_users_schedule(run_eagerly, data):
    model = marked(Stairs())
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    recorder = Recorder()
    history = fit(model, data, callbacks=[recorder])
    assert [row[0] for row in recorder.zeros] == [0, 32, 32, 64, 64, 64, 64, 64]
    assert history.history["sparsity"] == [0.5, 0.5]


def test_a_schedule_too_long_for_a_table(data, monkeypatch):
    monkeypatch.setattr("keras_trim.schedule_groups.MAX_TABLE_ENTRIES", 1)
    model = marked(PolynomialDecay(0.0, 0.5, 0, 4, power=1, frequency=1))
    model.compile("sgd", "mse")
    recorder = Recorder()
    fit(model, data, callbacks=[recorder])
    assert [row[0] for row in recorder.zeros] == [16, 32, 48, 64, 64, 64, 64, 64]


def test_the_end_of_a_schedule_too_long_for_a_table_is_exact(monkeypatch):
    monkeypatch.setattr("keras_trim.schedule_groups.MAX_TABLE_ENTRIES", 1)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(9)])
    schedule = PolynomialDecay(0.0, 0.7, 0, 2, frequency=1)
    optimizer = PruningOptimizer("sgd")
    optimizer.build(keras_trim.prune_low_magnitude(model, schedule).trainable_variables)
    step_alone(optimizer, model, 3)
    assert zeros(model) == [round(45 * 0.7)]  # 32 in float64, but 31 in float32


def test_extra_memory_is_a_byte_per_pruned_weight(data):
    model = marked(ConstantSparsity(0.5, 0))
    model.compile("adam", "mse")
    fit(model, data, epochs=1)
    optimizer = model.optimizer
    inner = {id(variable) for variable in optimizer.inner_optimizer.variables}
    own = [variable for variable in optimizer.variables if id(variable) not in inner]
    masks = [values(v) for v in own if v.shape != () and v is not optimizer.pruned_steps]
    assert sum(mask.nbytes for mask in masks) == 128 + 16
    assert all(mask.dtype == bool for mask in masks)
    assert values(optimizer.pruned_steps).nbytes == 2 * 4


def test_learning_rate_and_iterations_are_the_inner_optimizers(data):
    model = marked(ConstantSparsity(0.5, 0))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    fit(model, data)
    optimizer = model.optimizer
    assert int(values(optimizer.iterations)) == 8
    optimizer.learning_rate = 0.25
    assert float(values(optimizer.inner_optimizer.learning_rate)) == 0.25
    assert float(values(optimizer.learning_rate)) == 0.25


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_swapped_averages_are_sparse(policy, data):
    keras.config.set_dtype_policy(policy)
    model = marked(ConstantSparsity(0.5, 0, frequency=3))
    model.compile(keras.optimizers.Adam(0.01, use_ema=True), "mse")

    class Evaluated(keras.callbacks.Callback):
        zeros = []

        def on_test_begin(self, logs=None):
            self.zeros.append(np.count_nonzero(values(self.model.layers[0].kernel) == 0))

    swap = keras.callbacks.SwapEMAWeights()
    fit(model, data, epochs=4, callbacks=[swap, Evaluated()], validation_data=data)
    assert Evaluated.zeros[-1] >= 64


def test_losses_are_not_scaled_twice():
    inner = keras.optimizers.SGD(loss_scale_factor=8.0)
    optimizer = PruningOptimizer(inner)
    assert optimizer.loss_scale_factor == 8.0
    assert float(optimizer.scale_loss(1.0)) == 8.0
    keras.optimizers.LossScaleOptimizer(optimizer)
    assert inner.loss_scale_factor is None


def test_errors_of_the_model_are_not_masked(data):
    model = marked(ConstantSparsity(0.5, 0))

    def broken(y_true, y_pred):
        raise ArithmeticError("the user's own error")

    model.compile("sgd", broken)
    with pytest.raises(ArithmeticError, match="the user's own error"):
        fit(model, data)


def test_nothing_to_prune():
    model = make_mlp()
    optimizer = PruningOptimizer("sgd")
    with pytest.raises(ValueError, match="variables is marked.*Received: 4 trainable"):
        optimizer.build(model.trainable_variables)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
        lambda: PruningOptimizer("sgd"),
    ],
)
def test_it_wraps_the_optimizer_that_moves_weights(wrong):
    with pytest.raises(ValueError, match=r"`inner_optimizer`.*Received: inner_optimizer="):
        PruningOptimizer(wrong())


def test_compiled_into_a_model_it_needs_no_callback(data):
    model = marked(ConstantSparsity(0.5, 0))
    model.compile(PruningOptimizer(keras.optimizers.Adam()), "mse")
    model.fit(*data, verbose=0)
    assert zeros(model) == [64, 8]


def test_serialization(data):
    model = marked(PolynomialDecay(0.0, 0.5, 0, 4))
    optimizer = PruningOptimizer(keras.optimizers.Adam(0.25), name="pruner")
    optimizer.build(model.trainable_variables)
    config = keras.optimizers.serialize(optimizer)
    copy = keras.optimizers.deserialize(config)
    other = make_mlp()  # unmarked: the config determines what is pruned
    copy.build(other.trainable_variables)
    assert copy.name == "pruner"
    assert float(values(copy.learning_rate)) == 0.25
    assert [w.index for w in copy.pruned_weights] == [0, 2]
    assert copy.pruned_weights[0].spec.schedule is copy.pruned_weights[1].spec.schedule
    saved = copy.get_config()["pruning"]["weights"]
    original = optimizer.get_config()["pruning"]["weights"]
    assert [w | {"path": ""} for w in saved] == [w | {"path": ""} for w in original]


def test_a_config_of_another_model():
    model = marked(ConstantSparsity(0.5, 0))
    optimizer = PruningOptimizer("sgd")
    optimizer.build(model.trainable_variables)
    copy = PruningOptimizer.from_config(optimizer.get_config())
    other = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    with pytest.raises(
        ValueError,
        match=r"2 weights that were being pruned.*hidden/kernel.*compile=False.*Received: .*dense",
    ):
        copy.build(other.trainable_variables)


def test_set_weights(data):
    model = marked(ConstantSparsity(0.5, 0))
    optimizer = PruningOptimizer("adam")
    optimizer.build(model.trainable_variables)
    step(model, optimizer, [np.ones(v.shape, "float32") for v in model.trainable_variables])
    state = [values(variable).copy() for variable in optimizer.variables]
    fresh = PruningOptimizer("adam")
    fresh.build(model.trainable_variables)
    fresh.set_weights(state)
    for variable, value in zip(fresh.variables, state, strict=True):
        np.testing.assert_array_equal(values(variable), value)


def test_weights_that_are_excluded_from_weight_decay(mlp):
    optimizer = PruningOptimizer(keras.optimizers.SGD(0.1, weight_decay=0.5))
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    keras_trim.prune_low_magnitude(mlp, keras_trim.ConstantSparsity(0.5, 0))
    mlp.layers[0].bias.assign(np.ones(16))
    kernel = np.abs(values(mlp.layers[0].kernel)).sum()
    variables = mlp.trainable_variables
    optimizer.apply([ops.zeros(v.shape) for v in variables], variables)
    assert (values(mlp.layers[0].bias) == 1).all()
    assert np.abs(values(mlp.layers[0].kernel)).sum() < kernel
