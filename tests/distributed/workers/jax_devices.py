"""One JAX process with eight devices: weights on all of them, or split along either axis."""

import collections
import math
import pathlib
import re
import sys

import common
import jax
import keras
import numpy as np

import keras_trim
from keras_trim.counting import (
    _count_on_devices,
    _count_outside_on_devices,
    _program,
    count_nonzero_outside,
)
from tests import oracle

FOLDER = pathlib.Path(sys.argv[1])  # where XLA writes the programs of training steps
D = keras.distribution


def distribute(kind):
    if kind is None:
        D.set_distribution(None)
    elif kind == "replicated":
        D.set_distribution(D.DataParallel())
    else:
        layout = D.LayoutMap(D.DeviceMesh((2, 4), ("batch", "model")))
        layout[".*kernel"] = {"rows": ("model", None), "columns": (None, "model")}[kind]
        D.set_distribution(D.ModelParallel(layout_map=layout, batch_dim_name="batch"))


def train(kind, how="callback", **compile_arguments):
    """Returns the model, its losses, and what devices send each other within a step."""
    distribute(kind)
    before = set(FOLDER.glob("*train_step*after_optimizations.txt"))
    model = common.make_model(is_marked=how != "dense")
    losses = common.fit(model, how, **compile_arguments)
    programs = set(FOLDER.glob("*train_step*after_optimizations.txt")) - before
    assert programs
    return model, losses, [collectives(path.read_text()) for path in programs]


def collectives(program):
    """Lists the sizes of the results of collective operations in a compiled program."""
    operations = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    sizes = []
    for shapes in re.findall(rf"= (.*?) (?:{operations})(?:-start)?\(", program):
        for shape in re.findall(r"\w+\[([\d,]*)\]", shapes):
            sizes.append(math.prod(int(size) for size in shape.split(",") if size))
    return sizes


ALONE, LOSSES, _ = train(None)
MASKS = [weight.mask.numpy() for weight in ALONE.optimizer.pruned_weights]


def _check(kind, how):
    model, losses, programs = train(kind, how)
    common.assert_exact(model)
    common.assert_close(losses, LOSSES)
    common.assert_close(common.kernels(model), common.kernels(ALONE))
    for weight, mask in zip(model.optimizer.pruned_weights, MASKS, strict=True):
        assert weight.mask.value.sharding == weight.variable.value.sharding
        assert len(weight.mask.value.addressable_shards) == 8
        for shard in weight.mask.value.addressable_shards:  # on every device
            np.testing.assert_array_equal(shard.data, mask[shard.index])
    # Beyond what the same step sends without pruning: only a few counts per weight.
    _, _, dense = train(kind, "dense")
    (dense,) = {tuple(sorted(sizes)) for sizes in dense}
    for sizes in programs:
        added = collections.Counter(sizes) - collections.Counter(dense)
        assert all(size <= 3 * len(MASKS) for size in added), (sizes, dense)
        if kind != "replicated":
            assert added  # otherwise this looked in the wrong place
    return model


def replicated_weights_by_callback():
    _check("replicated", "callback")


def split_columns_by_callback():
    model = _check("columns", "callback")
    for weight in model.optimizer.pruned_weights:
        assert weight.mask.value.sharding.spec[1] == "model"


def split_rows_by_optimizer():
    model = _check("rows", "optimizer")
    for weight in model.optimizer.pruned_weights:
        assert weight.mask.value.sharding.spec[0] == "model"


def masks_are_those_of_one_device():
    for kind in ("columns", "rows"):
        distribute(kind)
        for pattern in ({}, {"block_size": (2, 2)}, {"sparsity_m_by_n": (2, 4)}):
            schedule = keras_trim.ConstantSparsity(0.5, 0, frequency=1)
            model = common.make_model(schedule=schedule, **pattern)
            before = common.kernels(model)
            common.fit(model, epochs=1, optimizer=keras.optimizers.SGD(0.0))
            for kernel, weight in zip(before, model.optimizer.pruned_weights, strict=True):
                matrix = kernel[None]
                if "block_size" in pattern:
                    expected = oracle.block_mask(matrix, (2, 2), "AVG", matrix.size // 8)[0]
                elif pattern:
                    expected = oracle.nm_mask(matrix, 4, 2)[0]
                else:
                    expected = oracle.keep_largest(kernel, kernel.size // 2)
                np.testing.assert_array_equal(weight.mask.numpy(), expected)


def zeros_are_counted_where_weights_lie():
    distribute("columns")
    model = common.make_model(is_marked=False)
    keras_trim.prune(model, 0.5)
    kernels = [layer.kernel for layer in model.layers]
    others = [keras.Variable(k.value, layout=k._layout) for k in kernels]
    for count, values in (
        (_count_on_devices, [(k.value,) for k in kernels]),
        (
            _count_outside_on_devices,
            [(k.value, m.value) for k, m in zip(kernels, others, strict=True)],
        ),
    ):
        program = _program(count, values[0][0].sharding.mesh).lower(values).compile()
        assert collectives(program.as_text())
        assert max(collectives(program.as_text())) <= len(values)
    assert count_nonzero_outside(kernels, others) == [0] * len(kernels)
    for other in others:
        other.assign(0 * other)
    expected = [np.count_nonzero(np.array(kernel)) for kernel in kernels]
    assert count_nonzero_outside(kernels, others) == expected
    rows = keras_trim.sparsity_report(model).rows
    expected = [int(np.sum(np.array(variable) == 0)) for variable in model.variables]
    assert [row.zeros for row in rows] == expected


def other_settings_of_the_step():
    """Gradient accumulation, moving averages, an eager step, several batches in one call."""
    averaged = keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3).get_config()
    accumulated = keras.optimizers.Adam(0.01, gradient_accumulation_steps=2).get_config()
    for config, settings in (
        (averaged, {}),
        (accumulated, {"epochs": 2 * common.EPOCHS}),
        (None, {"run_eagerly": True}),
        (None, {"steps_per_execution": 2}),
    ):
        found = []
        for kind in (None, "columns"):
            distribute(kind)
            if config:
                settings["optimizer"] = keras.optimizers.Adam.from_config(config)
            model = common.make_model()
            losses = common.fit(model, **settings)
            common.assert_exact(model)
            found.append((losses, common.kernels(model)))
        common.assert_close(found[1][0], found[0][0])
        common.assert_close(found[1][1], found[0][1])


def files():
    model, _, _ = train("columns")
    saved = keras_trim.save(model, FOLDER / "model.ktrim", include_optimizer=True)
    assert saved.file_bytes == (FOLDER / "model.ktrim").stat().st_size
    model.save(FOLDER / "model.keras")
    for kind in ("rows", None):
        distribute(kind)
        for load, name in (
            (keras_trim.load, "model.ktrim"),
            (keras.models.load_model, "model.keras"),
        ):
            loaded = load(FOLDER / name)
            common.assert_equal(common.kernels(loaded), common.kernels(model))
            for weight, other in zip(
                loaded.optimizer.pruned_weights, model.optimizer.pruned_weights, strict=True
            ):
                np.testing.assert_array_equal(weight.mask.numpy(), other.mask.numpy())
            common.run_fit(loaded, epochs=1)  # continues with another layout
            common.assert_exact(loaded)


def pruner_with_optax():
    import optax

    def train_with(kind):
        distribute(kind)
        model = common.make_model()
        pruner = keras_trim.Pruner(model)
        optimizer = optax.adam(0.01)

        @jax.jit
        def step(weights, state, pruning, x, y):
            def loss_of(weights):
                outputs, _ = model.stateless_call(weights, [], x)
                return ((outputs - y) ** 2).mean()

            loss, gradients = jax.value_and_grad(loss_of)(weights)
            updates, state = optimizer.update(gradients, state)
            weights = optax.apply_updates(weights, updates)
            weights, pruning = pruner.stateless_apply(pruning, weights)
            return loss, weights, state, pruning

        weights = [variable.value for variable in model.trainable_variables]
        pruning = [variable.value for variable in pruner.variables]
        state, losses = optimizer.init(weights), []
        for i in range(common.STEPS):
            rows = slice(i % 4 * common.BATCH, (i % 4 + 1) * common.BATCH)
            loss, weights, state, pruning = step(
                weights, state, pruning, common.X[rows], common.Y[rows]
            )
            losses.append(float(loss))
        assert int(pruning[0]) == common.STEPS
        assert [int((np.asarray(weights[i]) == 0).sum()) for i in (0, 2)] == common.ZEROS
        for i, mask in zip((0, 2), pruning[2:], strict=True):
            assert mask.sharding.is_equivalent_to(weights[i].sharding, 2)
        return losses, weights

    alone, split = train_with(None), train_with("columns")
    common.assert_close(split[0], alone[0])
    common.assert_close(split[1], alone[1])


if __name__ == "__main__":
    common.serve(
        [
            replicated_weights_by_callback,
            split_columns_by_callback,
            split_rows_by_optimizer,
            masks_are_those_of_one_device,
            zeros_are_counted_where_weights_lie,
            other_settings_of_the_step,
            files,
            pruner_with_optax,
        ]
    )
