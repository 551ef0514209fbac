"""What pruning a weight does to a model: the value of a metric, or the error of the outputs."""

import keras
import numpy as np
from keras import ops
from keras.src import backend

from keras_trim.one_shot.masks import to_bool
from keras_trim.one_shot.replay import values_of


class Score:
    """The metric of a model with given values of weights, or the error of its outputs.

    Args:
        model: Built Keras model.
        data: List of batches of inputs.
        y: Labels of all examples, or `None`.
        metric: Function (y, outputs) -> number, a `keras.metrics.Metric`, or `None`: the squared
            error of the outputs divided by their variance.
        data_name: String. The name of the caller's argument, for error messages.

    Attributes:
        name: String. `"output error"`, or the name of the metric.
        dense: Float. The score of the model as it is.

    Raises:
        ValueError: if the labels do not fit the examples, the metric does not return a finite
            number, or the outputs do not differ among examples.
    """

    def __init__(self, model, data, y, metric, data_name="x"):
        self._model, self._data, self._metric = model, data, metric
        self.name = "output error" if metric is None else getattr(metric, "__name__", "metric")
        self._outputs, self._masks = self._run(())
        if metric is not None:
            is_list = np.ndim(keras.tree.flatten(y)[0]) == 0  # of numbers
            y = np.asarray(y) if is_list else keras.tree.map_structure(_as_array, y)
        self._y = y
        counts = [
            len(keras.tree.flatten(both)[0]) for both in (y, self._outputs) if both is not None
        ]
        if len(set(counts)) > 1:
            raise ValueError(
                "`y` must have a label for each of the examples `x`. "
                f"Received: {counts[0]} labels for {counts[1]} examples"
            )
        self.dense = self._measure(self._outputs) if metric else 0.0
        if metric is None and not self._differences(self._outputs)[1] > 0:
            raise ValueError(
                f"`{data_name}` must be several examples for which the model gives different "
                "outputs, all finite: errors are relative to the variance of the outputs. "
                f"Received: {counts[0]} examples, whose outputs are the same or not finite"
            )

    def _measure(self, outputs):
        if isinstance(self._metric, keras.metrics.Metric):
            self._metric.reset_state()  # otherwise it would average over calls
        value = self._metric(self._y, outputs)
        value = ops.convert_to_numpy(value) if ops.is_tensor(value) else np.asarray(value)
        if value.ndim or value.dtype.kind not in "fiub" or not np.isfinite(value):
            raise ValueError(
                "`metric` must return one number that is finite. "
                f"Received: metric={self._metric!r}, which returned {value}"
            )
        return float(value)

    def _run(self, values):
        """Tuple of the outputs and, for each output, its mask or `None`: NumPy arrays."""
        with values_of(values):
            runs = [self._model(batch, training=False) for batch in self._data]
            flat = [[ops.convert_to_numpy(y) for y in keras.tree.flatten(run)] for run in runs]
        masks = [[backend.get_keras_mask(y) for y in keras.tree.flatten(run)] for run in runs]
        joined = [np.concatenate(parts) for parts in zip(*flat, strict=True)]
        masks = [
            None
            if any(part is None for part in parts)
            else np.concatenate(list(map(to_bool, parts)))
            for parts in zip(*masks, strict=True)
        ]
        return keras.tree.pack_sequence_as(runs[0], joined), masks

    def __call__(self, values):
        outputs, _ = self._run(values)
        if self._metric:
            return self._measure(outputs)
        error, size = self._differences(outputs)
        if not np.isfinite(error):
            raise ValueError(
                "The model gives NaN or infinity once a weight is pruned: measure in float32, or "
                f"pass `y` and a `metric`. Received: an error of {error}"
            )
        return error / size

    def _differences(self, outputs):
        """Tuple: the squared error against the dense outputs, and the variance of those."""
        error = size = 0.0
        both = zip(keras.tree.flatten(outputs), keras.tree.flatten(self._outputs), strict=True)
        for (a, b), mask in zip(both, self._masks, strict=True):
            if mask is not None:  # skip padding
                a, b = a[mask], b[mask]
            a, b = a.astype("float64"), b.astype("float64")  # squares overflow in float16
            with np.errstate(invalid="ignore"):
                error += float(np.square(a - b).mean())
                size += float(b.var(axis=0).mean())
        return error, size


def _as_array(x):
    return ops.convert_to_numpy(x) if ops.is_tensor(x) else np.asarray(x)
