"""Operations that run in Python, of any kind that has no kernel."""


class HostOperation:
    """An operation that runs in Python. It cannot be stored in a file.

    Subclasses have `output_specs(shapes)`, which returns for inputs of such shapes a list of
    `(shape, dtype)`, and `run(inputs, outputs)`, which fills arrays.

    Attributes:
        label: String, for the summary.
    """

    label = "Python"
    takes_integers = True
    output_dtype = None

    def multiply_adds(self, input_shape, output_shape):
        return 0, 0
