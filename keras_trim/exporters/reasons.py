"""Summarizes an error of Keras or of a converter in one sentence."""

import re

_MOST = 300  # characters
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_WHERE = "Exception encountered when calling"  # Keras gives the reason on the next line


def reason(error):
    """Returns the sentence of a long message that states the problem.

    Args:
        error: Exception.

    Returns:
        String without a final period.
    """
    lines = [line.strip() for line in _COLORS.sub("", str(error)).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if lines[0].startswith(_WHERE) and len(lines) > 1:
        lines[0] = f"{lines[0].removeprefix('Exception encountered when ').rstrip('.')}: {lines[1]}"
    return lines[0][:_MOST].rstrip(".")
