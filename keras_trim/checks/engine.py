"""Which layers `keras_trim.inference`, the CPU engine of this package, runs sparsely."""

from keras import layers

from keras_trim.checks.report import DeploymentReport
from keras_trim.checks.weights import kernels

# Below this share of zeros dense kernels are faster.
CROSSOVER = 0.5
_LAYERS = (
    layers.Dense,
    layers.EinsumDense,
    layers.Conv1D,
    layers.Conv2D,
    layers.SimpleRNN,
    layers.SimpleRNNCell,
    layers.LSTM,
    layers.LSTMCell,
    layers.GRU,
    layers.GRUCell,
)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)


def check(model):
    """Checks which kernels the engine runs sparsely; see `keras_trim.check`."""
    rows = [weight.check(*_broken_rule(weight)) for weight in kernels(model)]
    return DeploymentReport("engine", rows)


def _broken_rule(weight):
    """The rule that a weight breaks and its cure, or `None`, `None`."""
    layer = weight.layer
    is_grouped = isinstance(layer, _DEPTHWISE) or getattr(layer, "groups", 1) != 1
    if not isinstance(layer, _LAYERS) or is_grouped or not _is_kernel(weight.variable):
        return "only kernels of Dense, Conv1D, Conv2D and recurrent layers are run sparsely", None
    if weight.sparsity < CROSSOVER:
        return (
            f"dense is faster below {CROSSOVER:.0%} zeros",
            f"prune it to {CROSSOVER:.0%} or more" if weight.zeros else None,
        )
    return None, None


def _is_kernel(variable):
    return variable.name in ("kernel", "recurrent_kernel")
