"""Pruning on eight devices of JAX, and in two processes that share each kernel."""

import keras
import pytest
from launch import check

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="starts processes of JAX")


@pytest.fixture(scope="module")
def eight_devices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    flags = (
        "--xla_force_host_platform_device_count=8 "
        f"--xla_dump_to={folder} --xla_dump_hlo_module_re=.*train_step.*"
    )
    # JAX writes no program that it finds in its cache.
    variables = {"XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    return check("jax_devices", str(folder), backend="jax", **variables)


@pytest.fixture(scope="module")
def two_processes():
    flags = "--xla_force_host_platform_device_count=1"
    arguments = ("{rank}", "{port}", "{folder}")
    return check("jax_processes", *arguments, processes=2, backend="jax", XLA_FLAGS=flags)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "replicated_weights_by_callback",
        "split_columns_by_callback",
        "split_rows_by_optimizer",
        "masks_are_those_of_one_device",
        "zeros_are_counted_where_weights_lie",
        "other_settings_of_the_step",
        "files",
        "pruner_with_optax",
    ],
)
def test_eight_devices(eight_devices, name):
    assert not eight_devices[name], eight_devices[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "by_callback",
        "by_optimizer",
        "own_schedule",
        "files",
        "checkpoints",
        "files_that_cannot_be_written",
        "files_of_keras",
    ],
)
def test_two_processes(two_processes, name):
    assert not two_processes[name], two_processes[name]
