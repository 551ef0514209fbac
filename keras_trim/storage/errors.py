"""The one exception for files that cannot be trusted."""


class FormatError(ValueError):
    """A file is not a `.ktrim` file, is damaged, or says something that cannot be true."""
