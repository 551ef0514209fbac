"""`PruningSummaries`, the callback that logs sparsity for TensorBoard."""

import importlib.util
import math
import os
from typing import Any

import keras

from keras_trim.arguments import described
from keras_trim.callbacks import last_step, scheduled_sparsity
from keras_trim.counting import count_zeros, smallest_magnitudes
from keras_trim.finding import find_pruning_optimizers


class PruningSummaries(keras.callbacks.TensorBoard):
    """Keras's `TensorBoard` callback, which also logs sparsity.

    For each pruned weight it logs `<path>/sparsity` (the counted fraction of zeros) and
    `<path>/threshold` (the smallest magnitude kept). For all pruned weights together it logs
    `sparsity/measured` and `sparsity/scheduled`. The x-axis is the optimizer's step. It needs
    tensorboard and tensorflow on any backend: `pip install "keras-trim[summaries,tensorflow]"`.

    Args:
        log_dir: Path. Where to write; see `keras.callbacks.TensorBoard`.
        update_freq: `"epoch"`, `"batch"` or an integer; see `keras.callbacks.TensorBoard`. Weights
            are counted once per epoch.
        **kwargs: Further arguments of `keras.callbacks.TensorBoard`.

    Raises:
        ImportError: if tensorboard or tensorflow is not installed.
    """

    def __init__(
        self, log_dir: str | os.PathLike[str], update_freq: str | int = "epoch", **kwargs: Any
    ) -> None:
        log_dir = os.fspath(log_dir) if isinstance(log_dir, os.PathLike) else log_dir
        if not isinstance(log_dir, str) or not log_dir:
            raise ValueError(
                "`log_dir` must be the path of a folder to write to, such as 'logs'. "
                f"Received: log_dir={described(log_dir)}"
            )
        missing = [
            name for name in ("tensorboard", "tensorflow") if importlib.util.find_spec(name) is None
        ]
        if missing:
            # The extra does not install TensorFlow: users choose between its two packages.
            extras = "summaries,tensorflow" if "tensorflow" in missing else "summaries"
            raise ImportError(
                "`PruningSummaries` writes with TensorBoard: install it by "
                f'`pip install "keras-trim[{extras}]"`. Not found: {", ".join(missing)}'
            )
        super().__init__(log_dir=log_dir, update_freq=update_freq, **kwargs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        optimizers = [each for each in find_pruning_optimizers(self.model) if each.built]
        if not optimizers:
            return
        variables = [weight.variable for each in optimizers for weight in each.pruned_weights]
        counts, thresholds = count_zeros(variables), smallest_magnitudes(variables)
        sizes, step = [math.prod(v.shape) for v in variables], last_step(optimizers)
        with self._train_writer.as_default():
            for variable, zeros, size, threshold in zip(
                variables, counts, sizes, thresholds, strict=True
            ):
                self.summary.scalar(f"{variable.path}/sparsity", zeros / size, step)
                self.summary.scalar(f"{variable.path}/threshold", threshold, step)
            self.summary.scalar("sparsity/measured", sum(counts) / sum(sizes), step)
            self.summary.scalar("sparsity/scheduled", scheduled_sparsity(optimizers), step)
            self._train_writer.flush()
