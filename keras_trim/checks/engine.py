"""Which layers `keras_trim.inference`, the CPU engine of this package, runs sparsely."""

from keras import layers

from keras_trim.checks.report import DeploymentReport
from keras_trim.checks.weights import kernels

# The engine times both kinds of kernels; below this share of zeros it often takes dense ones.
_CROSSOVER = 0.5
_LAYERS = (
    layers.Dense,
    layers.EinsumDense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    layers.SimpleRNNCell,
    layers.LSTMCell,
    layers.GRUCell,
)
_KERNELS = ("kernel", "pointwise_kernel", "recurrent_kernel")


def check(model):
    """Checks which kernels the engine runs sparsely; see `keras_trim.check`."""
    rows = [weight.check(*_broken_rule(weight)) for weight in kernels(model)]
    return DeploymentReport("engine", rows)


def _broken_rule(weight):
    """The rule that a weight breaks and its cure, or `None`, `None`."""
    layer, name = weight.layer, weight.variable.name
    if not isinstance(layer, _LAYERS) or name not in _KERNELS:
        return (
            "only kernels of Dense, 1D and 2D convolutions (not depthwise) and recurrent layers "
            "are run sparsely",
            None,
        )
    if weight.sparsity < _CROSSOVER:
        return (
            f"below {_CROSSOVER:.0%} zeros dense is often faster",
            f"prune it to {_CROSSOVER:.0%} or more" if weight.zeros else None,
        )
    return None, None
