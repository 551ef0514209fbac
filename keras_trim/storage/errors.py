"""The exception for files that are damaged or not trustworthy."""


class FormatError(ValueError):
    """A `.ktrim`, checkpoint or engine file is damaged, contradicts itself, or is no such file."""
