"""Which format a file's name means."""

import os

# A format and the endings of its files, the first of which is the usual one.
ENDINGS = {
    "litert": (".tflite", ".litert"),
    "onnx": (".onnx",),
    "openvino": (".xml",),
    "safetensors": (".safetensors",),
}
# Files of other kinds, for which an exported one would be taken.
_OTHERS = (".keras", ".h5", ".hdf5", ".ktrim", ".engine", ".bin", ".pt", ".pth", ".pb", ".npz")


_OTHER_WRITERS = {
    **dict.fromkeys((".keras", ".h5"), " Files of Keras are written by `model.save(path)`."),
    ".ktrim": " Sparse files are written by `keras_trim.save(model, path)`.",
    ".engine": " Engines are written by `keras_trim.inference.Engine(model).save(path)`.",
}


def format_of(path, format=None):
    """The format of a file.

    Args:
        path: String or path-like.
        format: String, or `None`: what `path` ends with says.

    Returns:
        String, a key of `ENDINGS`.

    Raises:
        ValueError: if `path` says nothing, or something else than `format`.
    """
    if format is not None and format not in ENDINGS:
        formats = ", ".join(map(repr, ENDINGS))
        raise ValueError(f"`format` must be one of {formats}. Received: format={format!r}")
    path = os.fspath(path)
    ending = os.path.splitext(path)[1].lower()
    by_ending = {end: name for name, ends in ENDINGS.items() for end in ends}
    said = by_ending.get(ending)
    if said is None and (format is None or ending in _OTHERS or format == "openvino"):
        known = ", ".join(by_ending)
        wanted = f" For {format} files: {', '.join(ENDINGS[format])}." if format else ""
        raise ValueError(
            f"`path` must end in what the format is called by: {known}.{wanted}"
            f"{_OTHER_WRITERS.get(ending, '')} Received: path={path}, format={format!r}"
        )
    if format is not None and said not in (None, format):
        raise ValueError(
            f"`path` ends as {said} files do, and `format` is another: change one of them, or "
            f"leave `format` out. Received: path={path}, format={format!r}"
        )
    return format or said
