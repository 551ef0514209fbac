"""Verifies a converted file against the outputs of the user's model."""

import dataclasses

from keras_trim.exporters.cases import MismatchError, has_rows, largest_difference
from keras_trim.exporters.reasons import reason

# Largest difference between a file's and the model's outputs, relative to the largest output.
# Allows for a different order of summation, and for GPUs that round factors (TF32).
TOLERANCE = 1e-3


class FileDiffersError(MismatchError):
    """A file's outputs differ from the model's.

    Args:
        runtime: String. The runtime of the file.
        case: The `Case`.
        difference: Float. Relative to the largest output.
    """

    def __init__(self, runtime, case, difference):
        self.runtime, self.case, self.difference = runtime, case, difference
        far = "shapes, or in what is finite" if difference == float("inf") else ""
        amount = far or f"by {difference:.2g} of the largest"
        super().__init__(f"for {case.name} they differ {'in ' if far else ''}{amount}")


@dataclasses.dataclass(frozen=True)
class Converted:
    """The result of a converter.

    Args:
        data: Bytes of the file, or a dict from endings to bytes for several files.
        is_sparse: Bool. Whether zeros are stored sparsely.
        batch_size: Integer: the only batch size the file accepts, or `None` (any).
        largest_error: Float. The largest difference from the model's outputs, relative to the
            largest output.
        warnings: List of strings.
    """

    data: bytes
    is_sparse: bool = False
    batch_size: int | None = None
    largest_error: float = 0.0
    warnings: list = dataclasses.field(default_factory=list)


def verify(run, cases, runtime, tolerance=TOLERANCE):
    """Compares a file with the model on all cases.

    Args:
        run: Function of a list of arrays to a list of arrays: the file.
        cases: List of `Case`.
        runtime: String. The runtime of the file.
        tolerance: Float.

    Returns:
        Float. The largest difference, relative to the largest output.

    Raises:
        FileDiffersError: if it exceeds `tolerance`.
        ValueError: if the file cannot be run.
    """
    worst = 0.0
    for case in cases:
        try:
            values = run(case.inputs)
        except Exception as error:
            message = f"{runtime} cannot run the file for {case.name}: {reason(error)}"
            raise ValueError(message) from error
        difference = largest_difference(values, case.outputs)
        if not difference <= tolerance:
            raise FileDiffersError(runtime, case, difference)
        worst = max(worst, difference)
    return worst


def one_example(cases):
    """Splits cases for a file that takes one example at a time: one case per row.

    Of outputs without rows, such as a total over the batch, only cases of one example remain.
    """
    found = []
    for case in cases:
        if not has_rows(case):
            found += [case] if len(case.inputs[0]) == 1 else []
            continue
        for row in range(min(len(case.inputs[0]), 3)):
            part = slice(row, row + 1)
            found.append(
                dataclasses.replace(
                    case,
                    inputs=[array[part] for array in case.inputs],
                    outputs=[array[part] for array in case.outputs],
                )
            )
    return found
