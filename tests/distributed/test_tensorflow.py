"""Pruning on four devices of TensorFlow, and in two processes."""

import keras
import pytest
from launch import check, free_port

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="starts processes of TensorFlow"
)


@pytest.fixture(scope="module")
def replicas():
    results = {}
    for number in ("2", "4"):
        results |= check("tensorflow_replicas", number, backend="tensorflow")
    return results


@pytest.fixture(scope="module")
def two_processes():
    workers = ",".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    return check("tensorflow_processes", "{rank}", workers, processes=2, backend="tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "one_device_outside_of_the_scope",
        "two_replicas_inside_of_the_scope",
        "two_replicas_outside_of_the_scope",
        "four_replicas_by_optimizer",
        "four_replicas_eagerly",
        "checkpoints",
        "unbuilt_model",
        "masks_are_those_of_one_device",
        "custom_loop",
        "nothing_is_reduced_but_gradients",
        "what_fails_without_pruning_too",
    ],
)
def test_replicas(replicas, name):
    assert not replicas[name], replicas[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["by_optimizer", "nothing_is_reduced_but_gradients", "what_fails_without_pruning_too"],
)
def test_two_processes(two_processes, name):
    assert not two_processes[name], two_processes[name]
