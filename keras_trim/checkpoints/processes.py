"""Training in several processes: which of them writes, and what each of them holds."""

import json

import numpy as np

from keras_trim import hosts
from keras_trim.backend import BACKEND


def is_writer(model):
    """Whether this process is the one that writes checkpoints."""
    if BACKEND == "tensorflow":
        strategy = _strategy(model)
        return strategy is None or strategy.extended.should_checkpoint
    return index() == 0


def is_one_of_several(model):
    """Whether other processes train with this one."""
    if BACKEND == "tensorflow":
        strategy = _strategy(model)
        return strategy is not None and strategy.extended._in_multi_worker_mode()
    return count() > 1


def index():
    """Integer: the number of this process. (With TensorFlow 0, as all read the same.)"""
    if BACKEND == "jax":
        import jax

        return jax.process_index()
    group = _torch_group()
    return group.get_rank() if group else 0


def count():
    """Integer: how many processes there are. (With TensorFlow 1, as all read the same.)"""
    if BACKEND == "jax":
        import jax

        return jax.process_count()
    group = _torch_group()
    return group.get_world_size() if group else 1


def to_numpy(variable):
    """The value of a variable as `numpy.ndarray`; all processes ask for it at the same time."""
    # A copy: on the CPU it may be the memory that the next step writes to.
    return np.array(hosts.to_numpy(variable))


def gather(value):
    """List of the JSON values that the processes hold, in order; all call this at the same time."""
    if count() == 1:
        return [value]
    if BACKEND == "torch":
        gathered = [None] * count()
        _torch_group().all_gather_object(gathered, value)
        return gathered
    from jax.experimental import multihost_utils

    data = np.frombuffer(json.dumps(value).encode(), "uint8")
    sizes = multihost_utils.process_allgather(np.array([data.size]))
    padded = np.zeros(sizes.max(), "uint8")
    padded[: data.size] = data
    rows = multihost_utils.process_allgather(padded).reshape(count(), -1)
    return [
        json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes.reshape(-1), strict=True)
    ]


def _strategy(model):
    return getattr(model, "distribute_strategy", None)


def _torch_group():
    """The module `torch.distributed` if processes train together, or `None`."""
    if BACKEND != "torch":
        return None
    import torch

    is_used = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed if is_used else None
