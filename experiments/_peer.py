"""Worker that trains one row with TFMOT on Keras 2. The calling process scores the result."""

import argparse
import importlib
import warnings

import numpy as np

from benchmarks._common import serve
from experiments import training
from experiments.library import keras


def train(module, task, data, quick, start, path, target, seed, rate, dense_layer):
    """Trains from the weights in the file `start` and writes the new weights to `path`.

    Returns:
        Nested list of floats: the trained model's predictions for the task's examples.
    """
    arguments = argparse.Namespace(data=data, quick=quick, **task)
    task = importlib.import_module(module).make_task(arguments)
    with np.load(start) as arrays:
        weights = [arrays[name] for name in arrays.files]
    model = training.train_on(task, weights, target, seed, rate, dense_layer)
    plain = task.build(keras)
    for layer in plain.layers:
        if layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    np.savez(path, *plain.get_weights())
    return plain.predict(task.examples(), verbose=0).tolist()


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    serve(train)
