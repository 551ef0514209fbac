"""Operations without a kernel, which run in Python."""


class HostOperation:
    """An operation that runs in Python. It cannot be stored in a file.

    Subclasses have `output_specs(shapes)`, which returns a list of `(shape, dtype)` for inputs of
    these shapes, and `run(inputs, outputs)`, which fills the output arrays.

    Attributes:
        label: String, for the summary.
    """

    label = "Python"
    takes_integers = True
    output_dtype = None

    def multiply_adds(self, input_shape, output_shape):
        return 0, 0
