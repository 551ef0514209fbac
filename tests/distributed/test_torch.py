"""Pruning in two processes of PyTorch, which exchange gradients through gloo."""

import keras
import pytest
from launch import check

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="starts processes of PyTorch"
)


@pytest.fixture(scope="module")
def results():
    return check("torch_processes", "{rank}", "{port}", processes=2, backend="torch")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "pruning_optimizer",
        "torch_optimizer",
        "masks_are_those_of_one_device",
        "nothing_is_sent_but_gradients",
    ],
)
def test_two_processes(results, name):
    assert not results[name], results[name]
