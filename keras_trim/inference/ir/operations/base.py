"""The base class of operations: dataclasses of numbers, strings, tuples and arrays."""

INFINITY = float("inf")
OPERATIONS = {}  # name in a file -> class


class Operation:
    """One kind of operation: plain data, which a function in `lowering` turns into instructions."""

    arity = (1, 1)  # minimum and maximum number of inputs; None: no maximum
    takes_integers = False  # whether its inputs may be int32
    output_dtype = None  # Keras's dtype of its output; None: that of its inputs

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        OPERATIONS[cls.__name__] = cls

    def check(self):
        """Checks the fields, which may come from an untrusted file.

        Raises:
            ValueError: if a size or number is impossible.
        """

    def multiply_adds(self, input_shape, output_shape):
        """Multiply-adds per run, and how many of them have a nonzero weight."""
        return 0, 0

    def takes(self, count):
        """Whether it takes that many inputs."""
        least, most = self.arity
        return least <= count and (most is None or count <= most)
