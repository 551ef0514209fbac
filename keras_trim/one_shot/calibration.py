"""Prunes a model layer by layer on examples."""

import dataclasses

import keras
import numpy as np
from keras import layers, ops

from keras_trim.kinds import is_table
from keras_trim.one_shot.masks import all_padding
from keras_trim.one_shot.moments import Moments
from keras_trim.one_shot.product import to_numpy
from keras_trim.one_shot.products import products_of
from keras_trim.one_shot.reconstruct import reconstruct
from keras_trim.one_shot.replay import Replay, is_readable
from keras_trim.one_shot.sparsegpt import sparsegpt
from keras_trim.one_shot.statistics import Statistics, moved, normalizations
from keras_trim.one_shot.units import Units
from keras_trim.one_shot.wanda import wanda
from keras_trim.specs import PruningSpec


@dataclasses.dataclass(frozen=True)
class Job:
    """A weight to prune.

    Args:
        variable: Keras variable.
        spec: `PruningSpec`.
        sparsity: Float.
        layer: The layer that owns it.
    """

    variable: keras.Variable
    spec: PruningSpec
    sparsity: float
    layer: layers.Layer


class Calibration:
    """A model, examples, and new values for its weights.

    The model does not change until `assign`.

    Args:
        model: Keras model or layer.
        batches: List of inputs of the model, structures of arrays.
        method: `"reconstruct"`, `"sparsegpt"`, `"wanda"` or `"magnitude"`.

    Raises:
        ValueError: if the model cannot be called with the batches.
    """

    def __init__(self, model, batches, method):
        self.model, self.batches, self.method = model, batches, method
        self.values = {}  # id of a variable -> (variable, new value)
        self._replay = Replay(model, batches, has_dense=method == "reconstruct")
        self._products = products_of(model)
        self._normalizations = normalizations(model)
        self._calls, self._unreadable = {}, set()
        self._normalized_by = {}  # id of a layer -> the normalization that alone reads its output
        if batches:
            self._discover()

    def _discover(self):
        """Runs the dense model once to record which layers it calls, in which order, how often."""
        watched = {id(p.layer): p.layer for p in self._products.values()}
        watched |= {id(layer): layer for layer in self._normalizations}
        try:
            recorded = self._replay.record(list(watched.values()), self.batches[0])
        except Exception as error:
            shapes = keras.tree.map_structure(np.shape, self.batches[0])
            raise ValueError(
                "The model cannot be called with a batch of `calibration_data`, which must be its "
                f"inputs, without labels: {' '.join(str(error).split())[:300]} "
                f"Received: batches of shape {shapes}"
            ) from error
        givers, readers = {}, {}
        for call in recorded:
            key = id(call.layer)
            self._calls[key] = self._calls.get(key, 0) + 1
            if not is_readable(call.x):
                self._unreadable.add(key)
            readers.setdefault(id(givers.get(id(call.x))), []).append(call.layer)
            givers[id(call.output)] = call.layer
        normalizations = {id(layer) for layer in self._normalizations}
        for giver in givers.values():
            own = readers.get(id(giver), [])
            if len(own) == 1 and id(own[0]) in normalizations:
                self._normalized_by[id(giver)] = own[0]

    def why_not(self, job):
        """Why a weight must be pruned by magnitude instead of on examples: a string or `None`."""
        if self.method == "magnitude":
            return "asked for"
        product = self._products.get(id(job.variable))
        if product is None:
            return _why_no_product(job)
        if id(product.layer) in self._unreadable:
            return "its layer runs within a compiled loop"
        if isinstance(self._units(job), str):
            return self._units(job)
        return None

    def is_reached(self, variable):
        """Whether the layer of a weight is called; True if unknown."""
        product = self._products.get(id(variable))
        return product is None or id(product.layer) in self._calls

    def order(self, job):
        """Integer: the position of a weight's layer in the order of calls."""
        return list(self._calls).index(id(self._products[id(job.variable)].layer))

    def _units(self, job):
        return Units.of(job.spec, self._products[id(job.variable)], job.sparsity)

    # Pruning one weight

    def prune(self, job, moments=None):
        """Prunes a weight on its inputs in the pruned network. Call it in the order of layers."""
        moments = moments or self.moments(job)
        product = self._products[id(job.variable)]
        weights = product.to_matrices(to_numpy(job.variable))
        if not np.isfinite(weights).all():
            raise ValueError(
                "Weights must be finite to be pruned on `calibration_data`. "
                f"Received: NaN or infinity in '{job.variable.path}'"
            )
        pruned = self._solve(job, weights, moments)
        self._set(job.variable, product.from_matrices(pruned))

    def moments(self, job):
        """`Moments` of a weight's inputs in the pruned network, and of its dense outputs."""
        product = self._products[id(job.variable)]
        moments = Moments(product, self.method == "reconstruct")
        calls = self._calls[id(product.layer)]
        for sparse, dense in self._replay.inputs(product.layer, calls, self.values.values()):
            for own, other in zip(sparse, dense or [None] * len(sparse), strict=True):
                moments.add(own.x, None if other is None else other.x, own.mask)
        if not moments.count:
            raise all_padding(product.layer)
        if not moments.is_finite:
            raise ValueError(
                "The model turns `calibration_data` into NaN or infinity. Its weights must be "
                "finite; if they are, leave out the examples that cause this. "
                f"Received: no finite inputs of '{product.layer.name}'"
            )
        return moments

    def _solve(self, job, weights, moments):
        """The pruned weights (systems, inputs, outputs); also sets the corrected bias or mean."""
        units = self._units(job)
        if self.method == "sparsegpt":
            return sparsegpt(weights, moments.inputs(False), units)
        if self.method == "wanda":
            return wanda(weights, moments.inputs(False), units)
        product = moments.product
        normalization = self._normalization_of(product)
        is_centered = product.has_free_bias or normalization is not None
        h, c = moments.inputs(is_centered), moments.targets(is_centered)
        pruned = reconstruct(weights, h, c, units)
        if is_centered:
            shift = moments.mean_y - np.einsum("si,sio->so", moments.mean_x, pruned)
            self._correct(product, normalization, shift)
        return pruned

    def _normalization_of(self, product):
        """The batch normalization applied directly to a product's outputs, or `None`."""
        found = self._normalized_by.get(id(product.layer))
        if found is None or product.bias is not None or not product.is_output:
            return None
        is_alone = self._calls[id(product.layer)] == self._calls[id(found)] == 1
        is_alone = is_alone and self._replay.has_one_reader(product.layer)
        activation = product.layer.activation
        is_linear = activation is None or activation is keras.activations.linear
        is_first = getattr(product.layer, "data_format", None) == "channels_first"
        rank = found.input_spec.ndim
        fits = found.axis % rank == (1 if is_first else rank - 1)
        return found if is_alone and is_linear and fits else None

    def _correct(self, product, normalization, shift):
        """Compensates a shift of the outputs in the bias, or in the normalization's mean."""
        if product.has_free_bias:
            bias = product.shifted_bias(self._get(product.bias), shift)
            self._set(product.bias, bias)
        else:
            mean = normalization.moving_mean
            self._set(mean, self._get(mean) - product.output_shift(shift).reshape(mean.shape))

    def prune_by_magnitude(self, job):
        """Prunes a weight by magnitude, without examples."""
        values = ops.convert_to_tensor(job.variable)
        mask = job.spec.pattern.mask(values, job.spec.count_pruned(job.sparsity))
        value = ops.where(mask, values, ops.zeros((), values.dtype))
        self.values[id(job.variable)] = job.variable, value

    # Finishing

    def update_statistics(self, is_relative, advance=lambda: None):
        """Updates the statistics of batch normalization on the examples, in layer order.

        Args:
            is_relative: Boolean. Whether to change the model's statistics by as much as pruning
                changed those of the examples. If `False`, replaces them by those of the examples.
            advance: Function without arguments, called after each layer.
        """
        replay, order = Replay(self.model, self.batches, is_relative), list(self._calls)
        for layer in sorted(self.statistics, key=lambda layer: order.index(id(layer))):
            sparse, dense = Statistics(layer), Statistics(layer)
            for own, other in replay.inputs(layer, self._calls[id(layer)], self.values.values()):
                sparse.add(own)
                dense.add(other or [])
            mean, variance = sparse.result()
            if is_relative:
                mean, variance = moved(layer, dense.result(), (mean, variance))
            self._set(layer.moving_mean, mean)
            self._set(layer.moving_variance, variance)
            advance()

    @property
    def statistics(self):
        """List of the batch normalizations that the examples reach."""
        reached = set(self._calls) - self._unreadable
        return [layer for layer in self._normalizations if id(layer) in reached]

    def assign(self):
        """Assigns the new values to the model's weights; if interrupted, the old ones again."""
        # Through NumPy: JAX donates the arrays of weights to training steps.
        new = [(variable, ops.convert_to_numpy(value)) for variable, value in self.values.values()]
        old = []
        try:
            for variable, value in new:
                old.append((variable, np.array(ops.convert_to_numpy(variable.value))))
                variable.assign(value)
        except BaseException:  # a keyboard interrupt, too
            for variable, value in old:
                variable.assign(value)
            raise

    def _set(self, variable, value):
        dtype = "float64" if variable.dtype == "float64" else "float32"
        value = ops.convert_to_tensor(np.asarray(value, dtype))
        self.values[id(variable)] = variable, ops.cast(value, variable.dtype)

    def _get(self, variable):
        return to_numpy(self.values.get(id(variable), (None, variable))[1])


def _why_no_product(job):
    if is_table(job.layer, job.variable):
        return "a table is looked up, not multiplied"
    if "recurrent" in job.variable.name:
        return "a recurrent kernel multiplies states, which only the layer sees"
    return f"{type(job.layer).__name__} multiplies it in a way of its own"
