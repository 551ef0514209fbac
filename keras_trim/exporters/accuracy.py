"""Measures the accuracy of a quantized file on the user's data, against its float model."""

import dataclasses

import numpy as np

from keras_trim.exporters.cases import Case, call, has_rows, read_inputs


@dataclasses.dataclass(frozen=True)
class FileAccuracy:
    """A file's outputs on the user's data, compared with those of the float model.

    Args:
        num_examples: Integer.
        relative_error: Float. Root mean square of the differences, relative to that of the model's
            outputs.
        agreement: Float, or `None`. The fraction of examples for which file and model have the same
            largest output, in the first output with several values.
    """

    num_examples: int
    relative_error: float
    agreement: float | None

    def __str__(self):
        text = f"{self.relative_error:.2%} off on {self.num_examples:,} examples"
        if self.agreement is None:
            return text
        return f"{text}, the same largest output for {self.agreement:.2%}"

    @classmethod
    def of(cls, run, cases, batch_size=1):
        """Runs a file on `cases`, `batch_size` examples at a time."""
        errors = sizes = 0.0
        count = same = compared = 0
        for case in cases:
            for part in _parts(case, batch_size):
                values, targets = run(part.inputs), part.outputs
                count += len(part.inputs[0])
                for value, target in zip(values, targets, strict=True):
                    value, target = value.astype("float64"), target.astype("float64")
                    errors += np.square(value - target).sum()
                    sizes += np.square(target).sum()
                several = [i for i, target in enumerate(targets) if target.shape[-1:] > (1,)]
                if several:
                    value, target = (each[several[0]].argmax(-1) for each in (values, targets))
                    same += int((value == target).sum())
                    compared += target.size
        relative = float(np.sqrt(errors / sizes)) if sizes else float(errors > 0)
        return cls(count, relative, same / compared if compared else None)


def representative_cases(prepared, data):
    """Reads the user's data and runs the model on it.

    Args:
        prepared: `Prepared`.
        data: What `batches.calls` takes.

    Returns:
        List of `Case`, one per batch.

    Raises:
        ValueError: if `data` does not match the model's inputs, or is not finite.
    """
    cases = []
    for number, inputs in enumerate(read_inputs(prepared, data, "representative_data")):
        name = f"batch {number} of the representative data"
        case = Case(name, inputs, call(prepared.model, inputs))
        if not all(np.isfinite(x).all() for x in (*case.inputs, *case.outputs)):
            raise ValueError(
                "The ranges of activations are measured on `representative_data`, so all of it, "
                "and all that the model returns for it, must be finite. Leave out the other "
                f"examples. Received: NaN or infinity in {name}"
            )
        if has_rows(case) or prepared.model.inputs[0].shape[0] is not None:
            cases.append(case)
            continue
        for row in range(len(inputs[0])):  # a file may only take one example at a time
            one = [array[row : row + 1] for array in inputs]
            cases.append(Case(name, one, call(prepared.model, one)))
    return cases


def _parts(case, batch_size):
    """Yields the examples of a case as cases of `batch_size`."""
    if len(case.inputs[0]) <= batch_size:
        yield case
        return
    for first in range(0, len(case.inputs[0]), batch_size):
        inputs, outputs = (
            [array[first : first + batch_size] for array in arrays]
            for arrays in (case.inputs, case.outputs)
        )
        yield Case(case.name, inputs, outputs)
