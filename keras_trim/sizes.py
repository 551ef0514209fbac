"""Measures how large a model is in each storage format."""

import dataclasses
import gzip
import pathlib
import shutil
import tempfile
import warnings
from collections.abc import Collection, Sequence

import keras
from keras.src.saving import saving_lib

from keras_trim import exporters
from keras_trim.arguments import check_model, takes_named
from keras_trim.progress import progress
from keras_trim.storage import model as model_files
from keras_trim.storage.model_state import optimizer_ids
from keras_trim.tables import PrintedTable, Shown

FORMATS = {
    "raw": "weights in memory",
    "h5": "weights file (.weights.h5)",
    "gzip": "weights file, gzip -9",
    "ktrim": ".ktrim",
    "int8": '.ktrim, values="int8" (rounded)',
    "litert": "LiteRT (.tflite)",
}


@dataclasses.dataclass(frozen=True)
class SizeRow:
    """The size of a model in one format.

    Args:
        format: String. One of the keys of `FORMATS`.
        name: String. A description of the format.
        num_bytes: Integer.
        factor: Float. How many times smaller than the weights in memory.
    """

    format: str
    name: str
    num_bytes: int
    factor: float


@dataclasses.dataclass(frozen=True, repr=False)
class SizeTable(Shown):
    """The sizes of a model. It prints as a table.

    Args:
        rows: List of `SizeRow`.
        left_out: Dict: format -> why it could not be measured.
    """

    rows: list[SizeRow]
    left_out: dict[str, str]

    def __getitem__(self, format: str) -> SizeRow:
        """Returns the `SizeRow` of a format.

        Raises:
            KeyError: if the format was not measured.
        """
        for row in self.rows:
            if row.format == format:
                return row
        raise KeyError(format)

    def _table(self) -> PrintedTable:
        rows = []
        for row in self.rows:
            factor = f"{row.factor:.1f}" if row.factor >= 0.95 else f"{row.factor:.2g}"
            rows.append([row.name, f"{row.num_bytes:,}", factor])
        left_out = [f"{FORMATS[name]} left out: {why}" for name, why in self.left_out.items()]
        return PrintedTable(["stored as", ">bytes", ">times smaller"], rows, left_out)


@takes_named
def size_table(
    model: keras.Model,
    formats: Sequence[str] = tuple(FORMATS),
    verbose: str | bool = "auto",
) -> SizeTable:
    """Measures the size of a model in memory, gzipped, as `.ktrim` and as a LiteRT file.

    No format includes the optimizer's state.

    Args:
        model: Built Keras model.
        formats: Sequence of strings. What to measure: `"raw"` (the weights in memory), `"h5"` (the
            weights file of Keras), `"gzip"` (that file through gzip -9), `"ktrim"`, `"int8"`
            (`.ktrim` with int8 values), `"litert"`. Default: all of them.
        verbose: `"auto"` (reports progress on a terminal or in a notebook if it takes longer than
            two seconds), `True` or `False`.

    Returns:
        `SizeTable`. `print` it for a table. `.rows` has the data. `.left_out` says which formats
            could not be measured and why, for example LiteRT without its extra.

    Raises:
        ValueError: if the model is not built or a format is unknown.

    Example:

    ```python
    sizes = keras_trim.size_table(model)
    print(sizes)
    print(sizes["ktrim"].factor)
    ```
    """
    is_list = isinstance(formats, Collection) and not isinstance(formats, str)
    if not is_list or any(format not in [*FORMATS] for format in formats):
        raise ValueError(
            f"`formats` must be a sequence of {', '.join(map(repr, FORMATS))}. "
            f"Received: formats={formats!r}"
        )
    check_model(model)
    raw = sum(_num_bytes(variable) for variable in model.weights)
    rows, left_out = [], {}
    with (
        tempfile.TemporaryDirectory() as folder,
        progress("measuring sizes", len(formats), verbose) as work,
    ):
        for format in formats:
            work.description = f"measuring sizes, {FORMATS[format]}"
            try:
                size = raw if format == "raw" else _MEASURES[format](model, pathlib.Path(folder))
            except Exception as reason:  # a missing extra, or what the format lacks
                left_out[format] = " ".join(str(reason).split()) or type(reason).__name__
            else:
                rows.append(SizeRow(format, FORMATS[format], size, raw / size if size else 0.0))
            work.advance()
    return SizeTable(rows, left_out)


def _num_bytes(variable):
    return keras.ops.convert_to_numpy(variable.value).nbytes


def _save_h5(model, folder):
    path = folder / "model.weights.h5"
    if not path.exists():
        store = saving_lib.H5IOStore(path, mode="w")
        saving_lib._save_state(
            model,
            weights_store=store,
            assets_store=None,
            inner_path="",
            visited_saveables=optimizer_ids(model),
        )
        store.close()
    return path


def _measure_h5(model, folder):
    return _save_h5(model, folder).stat().st_size


def _measure_gzip(model, folder):
    target = folder / "model.weights.h5.gz"
    with open(_save_h5(model, folder), "rb") as reader, gzip.open(target, "wb", 9) as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
    return target.stat().st_size


def _measure_ktrim(model, folder, values=None):
    return model_files.write(model, folder / "model.ktrim", values, False).file_bytes


def _measure_int8(model, folder):
    return _measure_ktrim(model, folder, "int8")


def _measure_litert(model, folder):
    path = folder / "model.tflite"
    with warnings.catch_warnings():  # about the file's use, which only its size is for
        warnings.simplefilter("ignore")
        exporters.export(model, path, format="litert")
    return path.stat().st_size


_MEASURES = {
    "h5": _measure_h5,
    "gzip": _measure_gzip,
    "ktrim": _measure_ktrim,
    "int8": _measure_int8,
    "litert": _measure_litert,
}
