"""Checks which layers `keras_trim.inference`, the CPU engine of this package, runs sparsely.

This asks the engine itself: it imports and lowers the model as `Engine` does, benchmarks kernels,
and reports which ones were chosen.
"""

import numpy as np

from keras_trim.compatibility.report import DeploymentReport
from keras_trim.compatibility.weights import kernels

_CROSSOVER = 0.5  # below this sparsity, dense kernels are often faster
_FREE = 32  # the value assumed for free sizes
_SPARSE = ("sparse", "tiles")  # words in the descriptions of kernels that skip zeros


def check(model):
    """Checks which weights the engine runs sparsely; see `keras_trim.check`."""
    plan = _Plan(model)
    rows = []
    for weight in kernels(model):
        is_sparse, rule, cure = plan.verdict(weight)
        rows.append(weight.check(rule, cure, is_sparse))
    shapes = ", ".join(map(str, plan.shapes))
    threads = f"{plan.threads} thread{'s' * (plan.threads != 1)}"
    notes = [f"planned for inputs of shape {shapes} on this machine, with {threads}"]
    return DeploymentReport("engine", rows, notes=notes)


class _Plan:
    """The engine's program of a model for one example."""

    def __init__(self, model):
        from keras_trim.inference.engine import Engine  # needs Numba

        self._owners = {}
        engine = Engine._of(model, self._owners)
        self.shapes = [
            tuple(_FREE if n is None else n for n in (spec["shape"][0] or 1, *spec["shape"][1:]))
            for spec in engine._graph.input_specs
        ]
        runner = engine._runner([np.zeros(shape, np.float32) for shape in self.shapes], True)
        self.threads = runner.num_threads
        self._nodes = engine._graph.nodes
        self._choices = runner.program.labels

    def verdict(self, weight):
        """Returns whether a weight's zeros are skipped, the rule that it breaks, and the fix."""
        for node in self._nodes:
            is_in_keras = type(node.operation).__name__ == "KerasCall"
            if is_in_keras and self._is_within(weight, node, node.operation.function):
                rule = f"the engine has no kernel for '{node.name}', which runs in Keras"
                return False, rule, None
        chosen = self._chosen(weight)
        if any(word in kernel for kernel in chosen for word in _SPARSE):
            return True, None, None
        if not any(kernel.startswith("dense") for kernel in chosen):
            rule = (
                "only kernels of Dense, 1D and 2D convolutions (not depthwise) and recurrent "
                "layers are run sparsely"
            )
            return False, rule, None
        if weight.sparsity < _CROSSOVER:
            cure = f"prune it to {_CROSSOVER:.0%} or more" if weight.zeros else None
            return False, f"below {_CROSSOVER:.0%} zeros dense is often faster", cure
        return False, "its dense kernel was measured to be faster on this machine", None

    def _is_within(self, weight, node, function):
        """Whether a weight belongs to a function that runs in Keras."""
        if hasattr(function, "_flatten_layers"):
            return any(layer is weight.layer for layer in function._flatten_layers())
        return self._owners.get(node.name) is weight.layer

    def _chosen(self, weight):
        """Lists the descriptions of the kernels that multiply by a weight."""
        found = []
        for number, node in enumerate(self._nodes):
            arrays = [
                array
                for array in vars(node.operation).values()
                if isinstance(array, np.ndarray) and array.ndim > 1
            ]
            if not self._computes(self._owners.get(node.name), arrays, weight):
                continue
            chosen = self._choices.get(number, [])
            if len(chosen) == len(arrays) > 1:  # a recurrent layer has two products
                position = ("kernel", "recurrent_kernel").index(weight.variable.name)
                chosen = [chosen[position]]
            found += [self._of_joined(kernel) for kernel in chosen]
        return found

    def _computes(self, owner, arrays, weight):
        """Whether a node of a layer, with these arrays, multiplies by a weight."""
        alike = [array for array in arrays if array.size == weight.values.size]
        if owner is weight.layer or owner is None or not alike:
            return owner is weight.layer and bool(alike)
        # The converter of a layer, such as a recurrent one, reads the weights of its inner layers.
        # Several may have the same size, so compare zeros: folding and reordering keep their count.
        is_within = any(layer is weight.layer for layer in owner._flatten_layers())
        num_nonzero = weight.values.size - weight.zeros
        return is_within and any(np.count_nonzero(array) == num_nonzero for array in alike)

    def _of_joined(self, kernel):
        """Returns the choice for the layer that a fused branch was merged into."""
        name = kernel.removeprefix("with ")
        for number, node in enumerate(self._nodes):
            if name != kernel and node.name == name:
                return "; ".join(self._choices.get(number, []))
        return kernel
