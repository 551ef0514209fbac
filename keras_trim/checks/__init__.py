"""Checks which zeros a runtime will skip, layer by layer, without running it."""

import importlib

import keras

from keras_trim.checks.report import DeploymentReport as DeploymentReport
from keras_trim.checks.report import Obstacle as Obstacle
from keras_trim.checks.report import WeightCheck as WeightCheck

# Modules, which are imported when they are asked: a policy's rules are in this package, too.
_TARGETS = {
    "xnnpack": "xnnpack",
    "litert": "litert",
    "onnx": "onnx",
    "engine": "engine",
    "nvidia-2:4": "nvidia",
}


def check(model, target="xnnpack"):
    """Checks for each weight of a model whether a runtime will skip its zeros, and if not, why.

    Args:
        model: Built Keras model.
        target: String.
            - `"xnnpack"`: LiteRT's CPU backend, the only stock one that skips single zeros
            - `"litert"`: LiteRT as a whole, and which zeros its files omit. This reads the file
              that `export` makes, so it needs the extra `litert` and takes seconds
            - `"onnx"`: ONNX Runtime, likewise (extra `onnx`)
            - `"engine"`: `keras_trim.inference`
            - `"nvidia-2:4"`: the sparse tensor cores of NVIDIA GPUs

    Returns:
        `DeploymentReport`. `print` it for a table; `.rows` has the data. It is true if every pruned
        weight runs sparsely.

    Raises:
        ImportError: if an extra is not installed.
        ValueError: if the model is not built, if the runtime's rules need a graph and it has none,
            or if the target's file cannot be made.

    Example:

    ```python
    report = keras_trim.check(model, target="xnnpack")
    print(report)
    assert report, report.summary
    ```
    """
    if target not in _TARGETS:
        raise ValueError(
            f"`target` must be one of {', '.join(map(repr, _TARGETS))}. Received: target={target!r}"
        )
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: model={model!r}")
    if not model.built:
        raise ValueError(
            "The model has no weights yet: build it first, by `model.build(input_shape)` or by "
            f"calling it on a batch. Received: model={model.name}"
        )
    return importlib.import_module(f"keras_trim.checks.{_TARGETS[target]}").check(model)
