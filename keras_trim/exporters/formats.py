"""Determines a file's format from its name."""

import os

from keras_trim.arguments import one_of

# Each format with the endings of its files, the usual one first.
ENDINGS = {
    "litert": (".tflite", ".litert"),
    "onnx": (".onnx",),
    "openvino": (".xml",),
    "safetensors": (".safetensors",),
}
# Endings of other kinds of files, which an exported file must not be mistaken for.
_OTHERS = (".keras", ".h5", ".hdf5", ".ktrim", ".engine", ".bin", ".pt", ".pth", ".pb", ".npz")


_OTHER_WRITERS = {
    **dict.fromkeys((".keras", ".h5"), " Files of Keras are written by `model.save(path)`."),
    ".ktrim": " Sparse files are written by `keras_trim.save(model, path)`.",
    ".engine": " Engines are written by `keras_trim.inference.Engine(model).save(path)`.",
}


def format_of(path, format=None):
    """Returns the format of a file.

    Args:
        path: String or path-like.
        format: String, or `None` to go by the ending of `path`.

    Returns:
        String, a key of `ENDINGS`.

    Raises:
        ValueError: if the ending of `path` is unknown or contradicts `format`.
    """
    if format is not None:
        one_of(format, ENDINGS, "format")
    path = os.fspath(path)
    ending = os.path.splitext(path)[1].lower()
    by_ending = {end: name for name, ends in ENDINGS.items() for end in ends}
    said = by_ending.get(ending)
    if said is None and (format is None or ending in _OTHERS or format == "openvino"):
        known = ", ".join(by_ending)
        wanted = f" For {format} files: {', '.join(ENDINGS[format])}." if format else ""
        raise ValueError(
            f"`path` must have the ending of its format: {known}.{wanted}"
            f"{_OTHER_WRITERS.get(ending, '')} Received: path={path}, format={format!r}"
        )
    if format is not None and said not in (None, format):
        raise ValueError(
            f"`path` has the ending of {said} files, but `format` is different. Change one of "
            f"them, or leave out `format`. Received: path={path}, format={format!r}"
        )
    return format or said
