"""Training in several processes: which one writes, and how to collect their values."""

import json

import numpy as np

from keras_trim import hosts
from keras_trim.backend import BACKEND


def is_writer(model):
    """Whether this process writes the checkpoints."""
    if BACKEND == "tensorflow":
        strategy = _strategy(model)
        return strategy is None or strategy.extended.should_checkpoint
    return index() == 0


def is_one_of_several(model):
    """Whether other processes train together with this one."""
    if BACKEND == "tensorflow":
        strategy = _strategy(model)
        return strategy is not None and strategy.extended._in_multi_worker_mode()
    return count() > 1


def index():
    """Integer: the rank of this process. On TensorFlow always 0, because all read the same file."""
    if BACKEND == "jax":
        import jax

        return jax.process_index()
    group = _torch_group()
    return group.get_rank() if group else 0


def count():
    """Integer: the number of processes. On TensorFlow always 1, because all read the same file."""
    if BACKEND == "jax":
        import jax

        return jax.process_count()
    group = _torch_group()
    return group.get_world_size() if group else 1


def to_numpy(variable):
    """Returns a variable's value as a `numpy.ndarray`. All processes must call it together."""
    # Copy it: on the CPU, this may be the memory that the next step overwrites.
    return np.array(hosts.to_numpy(variable))


def gather(value):
    """Returns the JSON values of all processes, in order. All processes must call it together."""
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
    """Returns the module `torch.distributed` if processes train together, else `None`."""
    if BACKEND != "torch":
        return None
    import torch

    is_used = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed if is_used else None
