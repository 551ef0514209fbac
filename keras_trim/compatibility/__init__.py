"""Checks which zeros a runtime will skip, layer by layer, without running it."""

import importlib

import keras

from keras_trim.arguments import check_model, one_of, takes_named
from keras_trim.compatibility.report import DeploymentReport as DeploymentReport
from keras_trim.compatibility.report import Obstacle as Obstacle
from keras_trim.compatibility.report import WeightCheck as WeightCheck
from keras_trim.progress import progress

# Imported on demand, because policies import modules of this package, too.
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
    """Checks for each weight of a model whether a runtime will skip its zeros, and if not, why.

    Args:
        model: Built Keras model.
        target: String. Default: the engine of this library.
            - `"xnnpack"`: LiteRT's CPU backend, the only stock one that skips single zeros
            - `"litert"`: LiteRT as a whole, and which zeros its files omit. This reads the file
              that `export` makes, so it needs the extra `litert` and takes seconds
            - `"onnx"`: ONNX Runtime, from the file that `export` makes (extra `onnx`)
            - `"engine"`: `keras_trim.inference`
            - `"nvidia-2:4"`: the sparse tensor cores of NVIDIA GPUs
        verbose: `"auto"` (reports progress on a terminal or in a notebook if it takes longer than
            two seconds), `True` or `False`.

    Returns:
        `DeploymentReport`. `print` it for a table; `.rows` has the data. It is true if some weight
        runs sparsely, and none with 30 % zeros or more breaks a rule.

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
    one_of(target, _TARGETS, "target")
    check_model(model)
    with progress(f"checking against {target}", verbose=verbose):
        return importlib.import_module(f"keras_trim.compatibility.{_TARGETS[target]}").check(model)
