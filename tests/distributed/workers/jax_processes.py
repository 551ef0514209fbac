"""Two JAX processes that share each kernel: neither has all of it."""

import contextlib
import pathlib
import sys
from unittest import mock

import common
import keras
import numpy as np
import pytest

import keras_trim
from keras_trim import hosts

RANK, PORT, FOLDER = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
D = keras.distribution
D.initialize(f"127.0.0.1:{PORT}", 2, RANK)


def distribute(is_split=True):
    if not is_split:
        D.set_distribution(None)
        return
    layout = D.LayoutMap(D.DeviceMesh((1, 2), ("batch", "model")))
    layout[".*kernel"] = (None, "model")
    D.set_distribution(
        D.ModelParallel(layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False)
    )


def assert_shared(model, expected):
    """Checks that both processes hold their half of what a single process has."""
    for layer, kernel in zip(model.layers, expected, strict=True):
        value = layer.kernel.value
        assert not value.is_fully_addressable
        assert value.addressable_shards
        for shard in value.addressable_shards:
            np.testing.assert_allclose(shard.data, kernel[shard.index], atol=1e-5)


alone = common.make_model()
LOSSES = common.fit(alone)
KERNELS = common.kernels(alone)
MASKS = [weight.mask.numpy() for weight in alone.optimizer.pruned_weights]


def _check(how):
    distribute()
    model = common.make_model()
    common.assert_close(common.fit(model, how), LOSSES)
    common.assert_exact(model)
    assert_shared(model, KERNELS)
    for weight, mask in zip(model.optimizer.pruned_weights, MASKS, strict=True):
        assert weight.mask.value.sharding == weight.variable.value.sharding
        for shard in weight.mask.value.addressable_shards:
            np.testing.assert_array_equal(shard.data, mask[shard.index])
    return model


def by_callback():
    _check("callback")


def by_optimizer():
    model = _check("optimizer")
    keras_trim.strip_pruning(model)
    assert not hasattr(model.optimizer, "pruned_weights")
    assert not keras_trim.sparsity_report(model).is_marked


def own_schedule():
    """A schedule that is evaluated step by step and read from the masks."""

    class Half(keras_trim.PruningSchedule):
        def __call__(self, step):
            return step == 3, 0.5

        def get_config(self):
            return {}

    distribute()
    model = common.make_model(schedule=Half())
    common.fit(model)
    common.run_fit(model, epochs=1)
    common.assert_exact(model)


def files():
    distribute()
    model = common.make_model()
    common.fit(model)
    path = FOLDER / "model.ktrim"
    saved = keras_trim.save(model, path, include_optimizer=True)
    assert saved.file_bytes == path.stat().st_size  # the file exists when either continues
    assert not list(FOLDER.glob("*.tmp"))
    loaded = keras_trim.load(path)
    for layer, other in zip(loaded.layers, model.layers, strict=True):
        mine, theirs = layer.kernel.value, other.kernel.value
        assert mine.sharding == theirs.sharding
        for shard, expected in zip(mine.addressable_shards, theirs.addressable_shards, strict=True):
            np.testing.assert_array_equal(shard.data, expected.data)
    common.run_fit(loaded, epochs=1)
    common.assert_exact(loaded)
    keras_trim.load(path, model=model)
    distribute(False)
    whole = keras_trim.load(path)
    assert_shared(model, common.kernels(whole))
    assert [int((kernel == 0).sum()) for kernel in common.kernels(whole)] == common.ZEROS


def checkpoints():
    """One process writes, and both resume from its file as if nothing had happened."""
    folder = FOLDER / "checkpoints"

    def compiled():
        keras.utils.clear_session()  # the same names as those of the run before
        distribute()
        model = common.make_model()
        model.compile(keras.optimizers.Adam(0.01), "mse")
        return model

    model, losses = common.fit_resumed(compiled, folder)
    assert int(model.optimizer.iterations) == common.STEPS
    common.assert_close(losses, LOSSES)
    common.assert_exact(model)
    assert_shared(model, KERNELS)
    uninterrupted = compiled()
    common.run_fit(uninterrupted)
    for mine, theirs in zip(
        model.optimizer.variables, uninterrupted.optimizer.variables, strict=True
    ):
        assert mine.value.sharding == theirs.value.sharding, mine.path
        for shard, expected in zip(
            mine.value.addressable_shards, theirs.value.addressable_shards, strict=True
        ):
            np.testing.assert_array_equal(shard.data, expected.data)
    assert len(list(folder.iterdir())) == 2
    common.run_fit(model, epochs=1)  # it trains on


def files_that_cannot_be_written():
    """Both processes raise an error, and neither waits forever."""
    distribute()
    model = common.make_model(is_marked=False)
    for path in (FOLDER / "no folder" / "model.ktrim", FOLDER / "full.ktrim"):
        is_full = path.name == "full.ktrim" and RANK == 0
        replace_file = _full_disk(hosts.replace_file) if is_full else hosts.replace_file
        with (
            mock.patch.object(hosts, "replace_file", replace_file),
            pytest.raises(OSError, match=r"model\.ktrim|full"),
        ):
            keras_trim.save(model, path)
        assert not path.exists()
    assert not list(FOLDER.glob(".keras-trim-*"))


def _full_disk(replace_file):
    @contextlib.contextmanager
    def replace(path):
        with replace_file(path) as file:
            write = file.write

            class Full:
                def write(self, data):
                    if file.tell() > 100:
                        raise OSError(28, "the disk is full")
                    return write(data)

            yield Full()

    return replace


def files_of_keras():
    """`Model.save` reads whole weights, which no process can."""
    distribute()
    model = common.make_model(is_marked=False)
    with pytest.raises(RuntimeError, match="spans non-addressable"):  # the docs say so
        model.save(FOLDER / f"model{RANK}.keras")


if __name__ == "__main__":
    common.serve(
        [
            by_callback,
            by_optimizer,
            own_schedule,
            files,
            checkpoints,
            files_of_keras,
            files_that_cannot_be_written,
        ]
    )
