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
            number, or the outputs do not differ among examples, or have no axis of examples.
    """

    def __init__(self, model, data, y, metric, data_name="x"):
        self._model, self._data, self._metric = model, data, metric
        self.name = _name_of(metric)
        self._structure, self._outputs, self._masks = self._run(())
        if not all(part.ndim for parts in self._outputs for part in parts):
            raise ValueError(
                "Each output of `model` must be an array, and its first axis that of the examples: "
                "measure a model that returns only such outputs. Received: outputs of shapes "
                f"{[parts[0].shape for parts in self._outputs]}"
            )
        if metric is not None:
            is_list = np.ndim(keras.tree.flatten(y)[0]) == 0  # of numbers
            y = np.asarray(y) if is_list else keras.tree.map_structure(_as_array, y)
        self._y = y
        count = sum(map(len, self._outputs[0]))
        if y is not None and len(keras.tree.flatten(y)[0]) != count:
            raise ValueError(
                "`y` must have a label for each of the examples `x`. "
                f"Received: {len(keras.tree.flatten(y)[0])} labels for {count} examples"
            )
        self.dense = self._measure(self._outputs) if metric else 0.0
        if metric is None and not self._differences(self._outputs)[1] > 0:
            raise ValueError(
                f"`{data_name}` must be several examples for which the model gives different "
                "outputs, all finite: errors are relative to the variance of the outputs. "
                f"Received: {count} examples, whose outputs are the same or not finite"
            )

    def identity(self):
        """List of bytes that differ for other labels or another metric."""
        if self._metric is None:
            return []
        parts = [np.asarray(part).tobytes() for part in keras.tree.flatten(self._y)]
        if isinstance(self._metric, (keras.metrics.Metric, keras.losses.Loss)):
            config = {**self._metric.get_config(), "name": None}  # Keras numbers names
            parts.append(repr((type(self._metric).__name__, config)).encode())
        code = getattr(self._metric, "__code__", None)
        if code is not None:
            constants = [c for c in code.co_consts if isinstance(c, (int, float, str))]
            parts += [code.co_code, repr((code.co_names, constants)).encode()]
        return parts

    def _measure(self, outputs):
        if isinstance(self._metric, keras.metrics.Metric):
            self._metric.reset_state()  # otherwise it would average over calls
        shapes = [sorted({part.shape[1:] for part in parts}) for parts in outputs]
        if max(map(len, shapes)) > 1:
            raise ValueError(
                "With a `metric`, the outputs for all examples must have one length: pad the "
                "examples, or leave `y` and `metric` out to measure the error of the outputs. "
                f"Received: outputs of shapes {next(own for own in shapes if len(own) > 1)[:4]}"
            )
        outputs = keras.tree.pack_sequence_as(self._structure, list(map(np.concatenate, outputs)))
        value = self._metric(self._y, outputs)
        value = ops.convert_to_numpy(value) if ops.is_tensor(value) else np.asarray(value)
        if value.ndim or value.dtype.kind not in "fiub" or not np.isfinite(value):
            raise ValueError(
                "`metric` must return one number that is finite. "
                f"Received: metric={self._metric!r}, which returned {value}"
            )
        return float(value)

    def _run(self, values):
        """The model's outputs: their structure, their values and their masks.

        Returns:
            Tuple: nested outputs for the first batch; for each output, a list of NumPy arrays, one
            per batch; for each output, a list of masks, which may be `None`.
        """
        with values_of(values):
            runs = [self._model(batch, training=False) for batch in self._data]
            flat = [[ops.convert_to_numpy(y) for y in keras.tree.flatten(run)] for run in runs]
        masks = [[backend.get_keras_mask(y) for y in keras.tree.flatten(run)] for run in runs]
        return runs[0], *(list(zip(*parts, strict=True)) for parts in (flat, masks))

    def __call__(self, values):
        _, outputs, _ = self._run(values)
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
        for *both, masks in zip(outputs, self._outputs, self._masks, strict=True):
            a, b = (_joined(parts, masks) for parts in both)
            with np.errstate(invalid="ignore"):
                error += float(np.square(a - b).mean())
                size += float(b.var(axis=0).mean())
        return error, size


def _joined(parts, masks):
    """The outputs for all batches without padding, in which squares do not overflow: float64.

    If sequences differ in length, their steps are the first axis.
    """
    parts = [
        part if mask is None else part[to_bool(mask)]
        for part, mask in zip(parts, masks, strict=True)
    ]
    if len({part.shape[1:] for part in parts}) > 1:
        has_features = len({part.shape[-1] for part in parts}) == 1
        parts = [part.reshape(-1, part.shape[-1] if has_features else 1) for part in parts]
    return np.concatenate(parts).astype("float64")


def _as_array(x):
    return ops.convert_to_numpy(x) if ops.is_tensor(x) else np.asarray(x)


def _name_of(metric):
    """String for tables: the name of a function, or of the class of an object."""
    if metric is None:
        return "output error"
    return getattr(metric, "__name__", type(metric).__name__)  # Keras numbers names of objects
