"""How well a quantized file does on the user's data, beside the model that it was made of."""

import dataclasses

import numpy as np

from keras_trim.exporters.cases import Case, call, read_inputs


@dataclasses.dataclass(frozen=True)
class FileAccuracy:
    """A file's outputs on the user's data, compared with those of the float model.

    Args:
        num_examples: Integer.
        relative_error: Float. The root of the mean square of differences, over that of the model's
            outputs.
        agreement: Float, or `None`. The share of examples for which both have their largest output
            at the same place; of the first output that has several.
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
        """Runs a file on `cases`, a few examples after another."""
        errors = sizes = 0.0
        count = same = compared = 0
        for case in cases:
            for first in range(0, len(case.inputs[0]), batch_size):
                part = slice(first, first + batch_size)
                values = run([array[part] for array in case.inputs])
                targets = [array[part] for array in case.outputs]
                count += len(case.inputs[0][part])
                for value, target in zip(values, targets, strict=True):
                    value, target = value.astype("float64"), target.astype("float64")
                    errors += np.square(value - target).sum()
                    sizes += np.square(target).sum()
                several = [i for i, target in enumerate(targets) if target.shape[-1] > 1]
                if several:
                    value, target = (each[several[0]].argmax(-1) for each in (values, targets))
                    same += int((value == target).sum())
                    compared += target.size
        relative = float(np.sqrt(errors / sizes)) if sizes else float(errors > 0)
        return cls(count, relative, same / compared if compared else None)


def representative_cases(prepared, data):
    """The user's data and what the model returns for them.

    Args:
        prepared: `Prepared`.
        data: What `model.predict` takes.

    Returns:
        List of `Case`, one for each batch.

    Raises:
        ValueError: if `data` are not what the model takes.
    """
    return [
        Case(f"batch {number} of the representative data", inputs, call(prepared.model, inputs))
        for number, inputs in enumerate(read_inputs(prepared, data))
    ]
