"""Two PyTorch processes that train one model with `DistributedDataParallel`."""

import sys

import common
import keras
import numpy as np
import torch

import keras_trim
from tests import oracle

RANK, PORT = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group(
    "gloo", init_method=f"tcp://127.0.0.1:{PORT}", rank=RANK, world_size=2
)


def batches(parts):
    """Returns the batches of an epoch: all of each, or this process's half."""
    for start in range(0, len(common.X), common.BATCH):
        rows = slice(start, start + common.BATCH)
        if parts == 2:
            half = common.BATCH // 2
            rows = slice(start + RANK * half, start + (RANK + 1) * half)
        yield torch.tensor(common.X[rows]), torch.tensor(common.Y[rows])


def train(model, step, parts=2):
    """A custom loop. `step` moves the weights. Returns the losses of the epochs."""
    parallel = torch.nn.parallel.DistributedDataParallel(model) if parts == 2 else model
    losses = []
    for _ in range(common.EPOCHS):
        total = 0.0
        for x, y in batches(parts):
            loss = ((parallel(x) - y) ** 2).mean()
            model.zero_grad()
            loss.backward()
            step(model)
            total += loss.detach()
        if parts == 2:
            torch.distributed.all_reduce(total)
        losses.append(float(total) / parts)
    return losses


def keras_step(optimizer):
    def step(model):
        variables = model.trainable_variables
        with torch.no_grad():
            optimizer.apply([v.value.grad for v in variables], variables)

    return step


def torch_step(optimizer, pruner):
    def step(model):
        optimizer.step()
        pruner.apply()

    return step


def prune_by_keras(parts):
    model = common.make_model()
    optimizer = keras_trim.PruningOptimizer(keras.optimizers.Adam(0.01))
    optimizer.build(model.trainable_variables)
    losses = train(model, keras_step(optimizer), parts)
    return model, losses, [weight.mask for weight in optimizer.pruned_weights]


def prune_by_torch(parts):
    model = common.make_model()
    pruner = keras_trim.Pruner(model)
    optimizer = torch.optim.Adam(model.parameters(), 0.01, eps=1e-7)
    losses = train(model, torch_step(optimizer, pruner), parts)
    return model, losses, [weight.mask for weight in pruner.pruned_weights]


def gathered(array):
    """Returns the values of both processes."""
    mine = torch.tensor(np.array(array))
    both = [torch.empty_like(mine) for _ in range(2)]
    torch.distributed.all_gather(both, mine)
    return [each.numpy() for each in both]


def _check(prune):
    alone, expected, expected_masks = prune(1)
    model, losses, masks = prune(2)
    common.assert_exact(model)
    common.assert_close(losses, expected)
    with torch.no_grad():
        common.assert_close(common.kernels(model), common.kernels(alone))
        for mask, expected_mask in zip(masks, expected_masks, strict=True):
            one, other = gathered(mask.numpy().astype("uint8"))
            np.testing.assert_array_equal(one, other)
            np.testing.assert_array_equal(one.astype(bool), expected_mask.numpy())
        for kernel in common.kernels(model):
            np.testing.assert_array_equal(*gathered(kernel))


def pruning_optimizer():
    _check(prune_by_keras)


def torch_optimizer():
    _check(prune_by_torch)


def masks_are_those_of_one_device():
    model = common.make_model(schedule=keras_trim.ConstantSparsity(0.5, 0, frequency=1))
    with torch.no_grad():
        before = common.kernels(model)
    optimizer = keras_trim.PruningOptimizer(keras.optimizers.SGD(0.0))
    optimizer.build(model.trainable_variables)
    train(model, keras_step(optimizer))
    for kernel, weight, zeros in zip(before, optimizer.pruned_weights, common.ZEROS, strict=True):
        expected = oracle.keep_largest(kernel, zeros)
        for mask in gathered(weight.mask.numpy().astype("uint8")):
            np.testing.assert_array_equal(mask.astype(bool), expected)


def nothing_is_sent_but_gradients():
    def count_sent(run):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            run()
        events = [event for event in profile.key_averages() if "gloo" in event.key]
        assert events
        return {event.key: event.count for event in events}

    dense = common.make_model(is_marked=False)
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(dense.trainable_variables)
    sent = count_sent(lambda: train(dense, keras_step(optimizer)))
    assert count_sent(lambda: prune_by_keras(2)) == sent
    assert count_sent(lambda: prune_by_torch(2)) == sent


if __name__ == "__main__":
    common.serve(
        [
            pruning_optimizer,
            torch_optimizer,
            masks_are_those_of_one_device,
            nothing_is_sent_but_gradients,
        ]
    )
