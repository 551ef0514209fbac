"""Tracks the position of `fit` in its data, and restores it in another process.

`fit` draws batches from a Keras `EpochIterator` but passes it to no callback. So this module finds
it in the frame of `fit` and replaces two methods of that one object. An epoch's order is drawn when
its iterator is created. To restore a position, another process therefore needs the state of the
random number generators at that moment and the number of batches drawn since.
"""

import sys
import warnings

import keras
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter
from keras.src.trainers.data_adapters.tf_dataset_adapter import TFDatasetAdapter
from keras.src.trainers.epoch_iterator import EpochIterator

from keras_trim.checkpoints import random_state

_HOOKS = ("on_epoch_begin", "on_epoch_end")


def find_fit():
    """Returns the `EpochIterator` and the list of callbacks of the running `fit`.

    Raises:
        RuntimeError: if no `fit` is running.
    """
    frame = sys._getframe(1)
    while frame is not None:
        epoch_iterator = frame.f_locals.get("epoch_iterator")
        if frame.f_code.co_name == "fit" and isinstance(epoch_iterator, EpochIterator):
            return epoch_iterator, frame.f_locals["callbacks"].callbacks
        frame = frame.f_back
    raise RuntimeError(
        "`Checkpoint` can only track training inside Keras's own `model.fit`, so pass it to that. "
        "In a custom loop, use `model.save` or `keras_trim.save`. Received: a call from outside "
        "`fit`"
    )


class DataPosition:
    """Tracks an `EpochIterator`, and moves a new one to a saved position.

    Args:
        epoch_iterator: `EpochIterator` that `fit` has created and not drawn from yet.
        before_batch: Function of the batch's index within the epoch. It runs after one batch is
            complete and before the next one is drawn.
    """

    def __init__(self, epoch_iterator, before_batch):
        self._epoch_iterator = epoch_iterator
        self._adapter = epoch_iterator.data_adapter
        self._before_batch = before_batch
        self._generators = _generators_of_loader(self._adapter)
        self._iterators = 0  # number created before the latest
        self._drawn = 0  # batches drawn from the latest
        self._underway = 0  # batches that were handed to `fit`, which has not asked for more
        self._start = None  # the generators' state when the latest was created
        self._hook_calls = []
        self._hook_state = None
        self._resumed = None
        self.batches = 0  # in total
        self._enumerate = epoch_iterator._enumerate_iterator
        self._make_iterator = epoch_iterator._get_iterator
        epoch_iterator._enumerate_iterator = self._enumerate_batches
        epoch_iterator._get_iterator = self._get_iterator
        self._record_hooks()
        _warn_of_missing_seed(self._adapter)

    @property
    def _is_one_stream(self):
        """Whether the next epoch continues with this epoch's iterator."""
        return (
            self._epoch_iterator.steps_per_epoch is not None
            and self._epoch_iterator._current_iterator is not None
        )

    @property
    def _is_made(self):
        """Whether the latest iterator exists. TensorFlow creates it with the first batch."""
        is_eager = hasattr(self._epoch_iterator, "_distributed_dataset")
        return self._start is not None and (is_eager or self._drawn > 0)

    def state(self, step, is_end=False):
        """Returns the position as a dict of JSON types.

        Args:
            step: Integer. The number of completed batches in this epoch.
            is_end: Boolean. Whether `fit` has finished its last epoch.
        """
        now = random_state.read(self._generators)
        starts_anew = is_end and not self._is_one_stream
        if is_end and self._is_one_stream:  # `stop_training` has ended the epoch early
            self._count(self._underway)
        return {
            "batches": self.batches,
            "step": step,
            "iterators": self._iterators + (starts_anew and self._is_made),
            "drawn": 0 if starts_anew else self._drawn,
            "start": now if starts_anew else self._start,
            "now": None if starts_anew else now,  # creating an iterator changes it
            "steps_per_epoch": self._epoch_iterator.num_batches,
            "inferred_steps": self._epoch_iterator._num_batches,
            "hooks": self._hook_calls,
        }

    def resume(self, state):
        """Makes the next epoch begin where `state` was read.

        Raises:
            ValueError: if the data differs.
        """
        known, found = state["steps_per_epoch"], self._epoch_iterator.num_batches
        if state["step"] and found is not None and known != found:
            raise ValueError(
                "The checkpoint was written in the middle of an epoch with a different number of "
                "batches, so its position in the data cannot be found. Pass the same data, "
                "`batch_size` and `steps_per_epoch` to `fit`. "
                f"Received: {found} batches per epoch instead of {known}"
            )
        self.batches = state["batches"]
        self._iterators = state["iterators"]
        self._resumed = state

    # Replacements for methods of `EpochIterator`

    def _enumerate_batches(self):
        resumed = self._resumed
        if resumed is not None:
            self._replay_hooks(resumed["hooks"])
            if self._epoch_iterator._num_batches is None:  # known once an epoch has run
                self._epoch_iterator._num_batches = resumed["inferred_steps"]
        for begin, end, iterator in self._enumerate():
            if resumed is not None:
                if begin < resumed["step"]:
                    continue
                self._epoch_iterator._steps_seen = self._drawn + end - begin + 1
                resumed = None
            self._before_batch(begin)
            self._underway = end - begin + 1
            yield begin, end, iterator
            self._count(self._underway)

    def _count(self, batches):
        self._drawn += batches
        self.batches += batches
        self._underway = 0

    def _get_iterator(self):
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            self._iterators += self._is_made
            self._start, self._drawn = random_state.read(self._generators), 0
            return self._make_iterator()
        self._count_iterators(resumed["iterators"])
        random_state.write(resumed["start"], self._generators)
        self._start, self._drawn = resumed["start"], resumed["drawn"]
        iterator = iter(self._make_iterator())
        for index in range(resumed["drawn"]):
            _draw(iterator, index, resumed["drawn"])
        if resumed["now"] is not None:
            random_state.write(resumed["now"], self._generators)
        return iterator

    def _count_iterators(self, count):
        """Advances a `tf.data.Dataset`, which counts its iterators, to a later epoch's order."""
        if isinstance(self._adapter, TFDatasetAdapter):
            dataset = getattr(self._epoch_iterator, "_distributed_dataset", self._adapter._dataset)
            for _ in range(count):
                iter(dataset)

    # What a `PyDataset` does between epochs, such as shuffling

    def _record_hooks(self):
        if not isinstance(self._adapter, PyDatasetAdapter):
            return
        for name in _HOOKS:
            if getattr(type(self._adapter.py_dataset), name) is not getattr(
                keras.utils.PyDataset, name
            ):
                setattr(self._adapter, name, self._recording(name, getattr(self._adapter, name)))

    def _recording(self, name, hook):
        def recorded_hook():
            state = {
                key: value
                for key, value in random_state.read().items()
                if key in ("python", "numpy", "torch")
            }
            changed = {
                key: value
                for key, value in state.items()
                if self._hook_state is None or self._hook_state.get(key) != value
            }
            self._hook_calls.append([name, changed])
            self._hook_state = state
            hook()

        return recorded_hook

    def _replay_hooks(self, calls):
        """Repeats the hook calls up to the resumed epoch, except the one that begins it."""
        done, latest = calls, None
        if calls and calls[-1][0] == "on_epoch_begin":
            done, latest = calls[:-1], calls[-1]
        state = random_state.read()
        for name, changed in done:
            state = {**state, **changed}
            random_state.write(state)
            getattr(self._adapter.py_dataset, name)()
        self._hook_calls = list(done)
        self._hook_state = {key: state[key] for key in ("python", "numpy", "torch") if key in state}
        if latest is not None:  # the adapter makes this call next
            random_state.write({**state, **latest[1]})


def _draw(iterator, index, count):
    try:
        next(iterator)
    except Exception as error:
        if not isinstance(error, StopIteration) and type(error).__name__ != "OutOfRangeError":
            raise
        raise ValueError(
            f"The data ended after {index} batches, but the checkpoint was written after {count}. "
            "Pass the same data to `fit`. A generator must yield the same batches again, starting "
            f"with the first. Received: {index} batches"
        ) from error


def _generators_of_loader(adapter):
    """Returns each `torch.Generator` that a `DataLoader` draws its order from, once."""
    loader = getattr(adapter, "_dataloader", None)
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = [
        loader,
        getattr(loader, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
    ]
    found = {id(g): g for g in (getattr(owner, "generator", None) for owner in owners)}
    return [generator for generator in found.values() if hasattr(generator, "set_state")]


def _warn_of_missing_seed(adapter):
    """Warns if TensorFlow shuffles without a seed: its ops have a state that nobody can read."""
    if isinstance(adapter, TFDatasetAdapter):
        is_random = _shuffles_without_seed(adapter._dataset)
    elif keras.backend.backend() == "tensorflow" and getattr(adapter, "_shuffle", False):
        from tensorflow.python.eager import context

        is_random = context.global_seed() is None
    else:
        return
    if is_random:
        warnings.warn(
            "TensorFlow shuffles this data without a seed, so another process cannot repeat its "
            "order: a run that resumes within an epoch sees some examples twice and others not at "
            "all. Call `keras.utils.set_random_seed(0)` first, or pass a `seed` to "
            "`Dataset.shuffle`.",
            stacklevel=4,
        )


def _shuffles_without_seed(dataset):
    import tensorflow as tf

    seeds = [getattr(dataset, name, None) for name in ("_seed", "_seed2")]
    if all(seed is not None for seed in seeds) and "Shuffle" in type(dataset).__name__:
        values = [tf.get_static_value(seed) for seed in seeds]
        if all(value is not None and int(value) == 0 for value in values):
            return True
    inputs = dataset._inputs() if hasattr(dataset, "_inputs") else []
    return any(_shuffles_without_seed(each) for each in inputs)
