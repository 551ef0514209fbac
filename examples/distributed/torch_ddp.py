"""Pruning in several processes with PyTorch: `DistributedDataParallel`.

    python examples/distributed/torch_ddp.py

This starts two processes on this machine. On a cluster, start the script with `torchrun`.
"""

import os
import socket
import subprocess
import sys

os.environ["KERAS_BACKEND"] = "torch"


def start_two():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(2):
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        environment = os.environ | environment | {"RANK": str(rank)}
        processes.append(subprocess.Popen([sys.executable, __file__], env=environment))
    return max(abs(process.wait()) for process in processes)


if "RANK" not in os.environ:
    sys.exit(start_two())

import keras
import numpy as np
import torch

import keras_trim

torch.distributed.init_process_group("gloo")
rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()

rng = np.random.default_rng(0)
x = rng.standard_normal((512, 32), "float32")
y = (x @ rng.standard_normal((32, 1), "float32")).astype("float32")
dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
sampler = torch.utils.data.DistributedSampler(dataset)

model = keras.Sequential(
    [keras.Input((32,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(1)]
)
schedule = keras_trim.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=24, frequency=4)
keras_trim.prune_low_magnitude(model, schedule)
# This sends the first process's weights to the others, so masks are the same everywhere.
parallel = torch.nn.parallel.DistributedDataParallel(model)
pruner = keras_trim.Pruner(model)
optimizer = torch.optim.Adam(model.parameters())

for epoch in range(4):
    sampler.set_epoch(epoch)
    for x_batch, y_batch in torch.utils.data.DataLoader(dataset, 64 // count, sampler=sampler):
        loss = ((parallel(x_batch) - y_batch) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.apply()
if rank == 0:
    print(f"loss {loss.item():.3f}")
    print(keras_trim.sparsity_report(model))
torch.distributed.destroy_process_group()
