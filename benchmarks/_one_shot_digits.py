"""One-shot pruning of a small network on scikit-learn's digits, which trains in seconds.

It answers questions that would take hours on larger networks: how many examples to use, which
method, whether to prune the first convolution, and when to fine-tune afterwards. Results are means
over networks trained from several seeds. The library's defaults were not chosen with it.
"""

import functools
import math

import keras
import numpy as np

import keras_trim
from keras_trim import demo

SEEDS = range(5)
SPARSITIES = (0.8, 0.9, 0.95)
EXAMPLES = (16, 64, 256, 1024)
METHODS = ("reconstruct", "sparsegpt", "wanda", "magnitude")
FINE_TUNING = (1, 2, 4)  # epochs
TUNED_SPARSITY = 0.9
EPOCHS, BATCH_SIZE = 20, 32


def digits(arguments, cells):
    """Measures test accuracies for each seed, sparsity and way to prune."""
    data = demo.load_digits()
    for seed in SEEDS:
        network = _Network(data, seed)
        key = (f"seed {seed}",)
        cells.measure(*key, "dense", by=network.dense)
        for sparsity in SPARSITIES:
            for name, settings in _ways(network.model, sparsity).items():
                by = functools.partial(network.pruned, **settings)
                cells.measure(*key, sparsity, name, by=by)
        for epochs in FINE_TUNING:
            for name in ("one shot, KeepZeros", "gradual"):
                by = functools.partial(network.tuned, epochs, name == "gradual")
                cells.measure(*key, f"{epochs} epochs", name, by=by)


def _ways(model, sparsity):
    """Returns a dict: name -> arguments of `_Network.pruned`."""
    ways = {f"{n} examples": {"sparsity": sparsity, "count": n} for n in EXAMPLES}
    ways |= {f"method {m}": {"sparsity": sparsity, "method": m} for m in METHODS}
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    sizes = [math.prod(v.shape) for v in kernels]
    others = sparsity * sum(sizes) / sum(sizes[1:])  # as many zeros, none in the first kernel
    paths = {v.path.split("/", 1)[1]: others for v in kernels[1:]}
    ways["first dense"] = {"distribution": keras_trim.Allocation(paths)}
    return ways


class _Network:
    """A network that is trained once, then restored before each measurement."""

    def __init__(self, data, seed):
        self._data, self._seed, self._weights = data, seed, None
        keras.utils.set_random_seed(seed)
        self.model = demo.build_model(data)

    def _restore(self):
        if self._weights is None:
            keras.utils.set_random_seed(self._seed)
            self._fit(EPOCHS)
            self._weights = self.model.get_weights()
        self.model.set_weights(self._weights)

    def _fit(self, epochs, callbacks=()):
        demo.compile_model(self.model)
        data = self._data
        settings = {"batch_size": BATCH_SIZE, "verbose": 0, "callbacks": list(callbacks)}
        self.model.fit(data.x_train, data.y_train, epochs=epochs, **settings)

    def _measure(self):
        outputs = self.model.predict(self._data.x_test, verbose=0)
        zeros = keras_trim.sparsity_report(self.model).model_sparsity
        accuracy = float(np.mean(outputs.argmax(-1) == self._data.y_test))
        return {"test": accuracy, "zeros": zeros}

    def dense(self):
        self._restore()
        return self._measure()

    def pruned(self, sparsity=None, count=512, method="reconstruct", **arguments):
        """Measures the network after pruning it in one shot on `count` examples."""
        self._restore()
        x = self._data.x_train[:count]
        keras_trim.prune(self.model, sparsity, calibration_data=x, method=method, **arguments)
        return self._measure()

    def tuned(self, epochs, is_gradual):
        """Measures it after one shot plus `epochs` of fine-tuning, or after gradual pruning."""
        self._restore()
        keras.utils.set_random_seed(self._seed)
        steps = epochs * math.ceil(len(self._data.x_train) / BATCH_SIZE)
        if is_gradual:
            end = steps * 2 // 3
            schedule = keras_trim.PolynomialDecay(
                0.0, TUNED_SPARSITY, 0, end, frequency=max(end // 20, 1)
            )
        else:
            x = self._data.x_train[:512]
            keras_trim.prune(self.model, TUNED_SPARSITY, calibration_data=x)
            schedule = keras_trim.KeepZeros()
        keras_trim.prune_low_magnitude(self.model, schedule)
        self._fit(epochs, [keras_trim.UpdatePruningStep()])
        keras_trim.strip_pruning(self.model)
        return self._measure()
