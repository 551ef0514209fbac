"""Several `fit` calls in one process that take turns, so their steps can be compared.

A machine's speed drifts by more than the differences of interest. So each `fit` runs in its own
thread, and only one at any time. After every block of steps, it waits until its steps are computed,
records the time of the block and hands over to the next. This measures Keras's own training loop,
with the callbacks that a user would pass.
"""

import threading
import time


class _Turns:
    """Decides which of the `fit` calls may run."""

    def __init__(self, names):
        self._waiting = list(names)
        self._condition = threading.Condition()

    def wait(self, name):
        with self._condition:
            self._condition.wait_for(lambda: self._waiting[0] == name)

    def hand_over(self, name):
        with self._condition:
            self._waiting.append(self._waiting.pop(0))
            self._condition.notify_all()
        self.wait(name)

    def leave(self, name):
        with self._condition:
            self._waiting.remove(name)
            self._condition.notify_all()


def take_turns(callback_class, fits, block):
    """Runs the `fit` calls to completion, block by block.

    Args:
        callback_class: `keras.callbacks.Callback`, of the Keras that `fits` use.
        fits: Dict: name -> function that takes a callback and calls `fit` with it. The number of
            steps must be one more than a multiple of `block`.
        block: Integer. The number of steps per turn.

    Returns:
        Dict: name -> list of the seconds of each block.
    """
    turns = _Turns(fits)
    errors = []

    class Stopwatch(callback_class):
        # Let JAX compute a step while Python prepares the next, as it would without this callback.
        async_safe = True

        def __init__(self, name):
            super().__init__()
            self.seconds = []
            self._name = name
            self._start = None
            self._finished = -1
            self._condition = threading.Condition()

        def on_train_batch_begin(self, batch, logs=None):
            if batch % block:
                return
            if batch:
                with self._condition:
                    self._condition.wait_for(lambda: self._finished >= batch - 1)
                self.seconds.append(time.perf_counter() - self._start)
                turns.hand_over(self._name)
            self._start = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            # Keras has read the step's loss, so the step is computed.
            with self._condition:
                self._finished = max(self._finished, batch)
                self._condition.notify_all()

    def run(name, fit, stopwatch):
        turns.wait(name)
        try:
            fit(stopwatch)
        except Exception as error:
            errors.append(error)
        finally:
            turns.leave(name)

    stopwatches = {name: Stopwatch(name) for name in fits}
    threads = [
        threading.Thread(target=run, args=(name, fit, stopwatches[name]))
        for name, fit in fits.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return {name: stopwatch.seconds for name, stopwatch in stopwatches.items()}
