"""The exception for files that are damaged or not trustworthy."""


class FormatError(ValueError):
    """The file is not a `.ktrim` file, is damaged, or contradicts itself."""
