"""Summarizes an error of Keras or of a converter in one sentence."""

import re

_MOST = 300  # characters
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_WHERE = "Exception encountered when calling"  # Keras gives the reason on the next line
_NO_OPERATION = re.compile(r"'tf\.\w+' op is neither a custom op nor a flex op")
_DETAILS = re.compile(r"^\s*(tf\.\w+\(tensor<.*)$", re.MULTILINE)
_LOCATION = re.compile(r"(?:<unknown>:0: error: )?\bloc\(.*\): ")
_SCOPE = re.compile(r'"([^"@]+)@')  # the layers that an operation is in, the outermost first


def reason(error, layers=()):
    """Returns the sentence of a long message that states the problem.

    Args:
        error: Exception.
        layers: Iterable of layers. The sentence names the one that the message is about, if any.

    Returns:
        String without a final period.
    """
    # PyTorch's exporter raises what failed inside of a page of advice.
    while type(error).__module__.startswith("torch.onnx") and error.__cause__ is not None:
        error = error.__cause__
    text = _COLORS.sub("", str(error))
    found = _NO_OPERATION.search(text)
    if found:
        details = _DETAILS.search(text)
        sentence = found[0] + (f", {details[1].strip()}" if details else "")
    else:
        sentence = _sentence(_LOCATION.sub("", text)) or type(error).__name__
    layer = _layer(text, layers)
    where = f" (in layer '{layer}')" if layer else ""
    return sentence[:_MOST].rstrip(".") + where


def _sentence(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0].startswith(_WHERE) and len(lines) > 1:
        return f"{lines[0].removeprefix('Exception encountered when ').rstrip('.')}: {lines[1]}"
    return lines[0] if lines else ""


def _layer(text, layers):
    """Returns the name of the first layer in a location of TensorFlow's converter, or `None`."""
    scope = _SCOPE.search(text)
    # A model around the layer would tell less.
    names = {layer.name for layer in layers if not hasattr(layer, "layers")}
    for part in scope[1].split("/") if scope else ():
        for name in (part, re.sub(r"_\d+$", "", part)):  # Keras numbers scopes that it enters again
            if name in names:
                return name
    return None
