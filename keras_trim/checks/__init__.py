"""Which zeros a runtime will skip, layer by layer, before it is tried."""

import importlib

import keras

from keras_trim.arguments import check_model, takes_named
from keras_trim.checks.report import DeploymentReport as DeploymentReport
from keras_trim.checks.report import Obstacle as Obstacle
from keras_trim.checks.report import WeightCheck as WeightCheck
from keras_trim.progress import progress

# Modules, which are imported when they are asked: a policy's rules are in this package, too.
_TARGETS = {
    "xnnpack": "xnnpack",
    "litert": "litert",
    "onnx": "onnx",
    "engine": "engine",
    "nvidia-2:4": "nvidia",
}


@takes_named
def check(
    model: keras.Model, target: str = "engine", verbose: str | bool = "auto"
) -> DeploymentReport:
    """Says for each weight of a model whether a runtime will skip its zeros, and if not, why.

    Args:
        model: Keras model that is built.
        target: String. By default the engine of this library.
            - `"xnnpack"`: LiteRT's CPU backend, the only stock one that skips single zeros
            - `"litert"`: LiteRT as a whole, and which zeros its files omit; read from the file
              that `export` makes, so it needs the extra `litert` and takes seconds
            - `"onnx"`: ONNX Runtime, likewise (extra `onnx`)
            - `"engine"`: `keras_trim.inference`
            - `"nvidia-2:4"`: the sparse tensor cores of NVIDIA's GPUs
        verbose: `"auto"` (on a terminal and in a notebook, says what it does if it takes longer
            than two seconds), `True` or `False`.

    Returns:
        `DeploymentReport`. `print` it for a table; `.rows` is the data. It is true if every
        pruned weight is run sparsely.

    Raises:
        ImportError: if an extra is not installed.
        ValueError: if the model is not built, the runtime's rules need a graph and it has none, or
            the file of a target that has one cannot be made.

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
    check_model(model)
    with progress(f"checking against {target}", verbose=verbose):
        return importlib.import_module(f"keras_trim.checks.{_TARGETS[target]}").check(model)
