"""What every operation of the graph is: a dataclass of numbers, strings, tuples and arrays."""

INFINITY = float("inf")
OPERATIONS = {}  # name in a file -> class


class Operation:
    """One kind of operation: plain data.

    `lowering` has the function that makes instructions of it.
    """

    arity = (1, 1)  # the least and the most inputs; None: any number
    takes_integers = False  # whether its inputs may be int32
    output_dtype = None  # Keras's dtype of its output; None: that of its inputs

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        OPERATIONS[cls.__name__] = cls

    def check(self):
        """Checks what a file may have gotten wrong.

        Raises:
            ValueError: if a size or number is impossible.
        """

    def multiply_adds(self, input_shape, output_shape):
        """Multiply-adds per run, and how many of them are with weights that are not zero."""
        return 0, 0

    def takes(self, count):
        """Whether it takes that many inputs."""
        least, most = self.arity
        return least <= count and (most is None or count <= most)
