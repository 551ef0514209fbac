"""Demo on real data: trains a small CNN, prunes 80 % of it during further training, and compares.

    python -m keras_trim.demo                     # the 8x8 digits of scikit-learn, about 20 s
    python -m keras_trim.demo --data mnist.npz    # MNIST, or any file in its format

It prints a table of the models and a report of every weight, and draws a PNG.
"""

import argparse
import math
import pathlib
import sys
import time
import typing
import zipfile
import zlib

import keras
import numpy as np
from keras import layers, ops
from rich.console import Console
from rich.table import Table

import keras_trim
from keras_trim import plots
from keras_trim.annotations import marked_variables

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_SEED = 0
_FINAL_SPARSITY = 0.8
_NUM_CALIBRATION = 512  # images; their labels are not used


class Data(typing.NamedTuple):
    """Gray images of shape (count, height, width, 1) in [0, 1], and their classes."""

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


class Measurements(typing.NamedTuple):
    """The values that the table compares."""

    accuracy: float
    num_weights: int
    num_nonzero: int
    num_bytes: int
    num_bytes_gzipped: int
    num_bytes_ktrim: int


class SparsityRecorder(keras.callbacks.Callback):
    """Counts the zeros in the weights after every optimizer step."""

    def __init__(self):
        super().__init__()
        self.sparsities = []

    def on_train_batch_end(self, batch, logs=None):
        self.sparsities.append(keras_trim.sparsity_report(self.model).sparsity)


def main(argv=None):
    args = _parse_arguments(argv)
    start = time.perf_counter()
    try:
        # Do this first, so that anything missing is found before training.
        figure, axes = plots.make_figure(2)
        data = load_npz(args.data) if args.data else load_digits()
        args.output_dir.mkdir(parents=True, exist_ok=True)
    except (ImportError, OSError, ValueError) as error:
        print(f"keras_trim.demo: {error}", file=sys.stderr)
        return 2
    print(
        f"{data.name}: {len(data.x_train):,} images to train on, {len(data.x_test):,} to test; "
        f"backend {keras.backend.backend()}"
    )
    keras.utils.set_random_seed(_SEED)
    # A few hundred training steps for both sizes of data.
    is_large = len(data.x_train) > 10_000
    epochs = args.epochs or (2 if is_large else 20)
    table, report = compare(data, epochs, 128 if is_large else 32, axes)
    picture = args.output_dir / "pruning.png"
    figure.savefig(picture)
    print(f"\n{report}\n")
    Console().print(table)
    print(f"Picture: {picture.resolve()}")
    print(f"Seconds: {time.perf_counter() - start:.0f}")
    return 0


def compare(data, epochs, batch_size, axes):
    """Trains a dense model, prunes it during further training, and plots the result.

    Args:
        data: `Data`.
        epochs: Integer. Epochs of dense training, and again of training with pruning.
        batch_size: Integer.
        axes: Two `matplotlib.axes.Axes` to draw into.

    Returns:
        Tuple of the table that compares the models, and the `SparsityReport`.
    """
    print("\nTraining dense")
    model = build_model(data)
    compile_model(model)
    model.fit(data.x_train, data.y_train, batch_size=batch_size, epochs=epochs)
    dense = measure(model, data)

    print(f"\nPruning a copy of it to {_FINAL_SPARSITY:.0%} at once, on images without labels")
    at_once, seconds = prune_copy(model, data)

    print(f"\nTraining on, while {_FINAL_SPARSITY:.0%} of the weights are pruned")
    total_steps = epochs * math.ceil(len(data.x_train) / batch_size)
    schedule = keras_trim.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=_FINAL_SPARSITY,
        begin_step=0,
        end_step=total_steps * 2 // 3,  # in the last third, the remaining weights settle
        frequency=max(total_steps // 40, 1),
    )
    keras_trim.prune_low_magnitude(model, schedule)
    compile_model(model)  # compile again: the schedule counts the optimizer's steps from 0
    pruned_variables = marked_variables(model)
    before = _concatenate(pruned_variables)
    recorder = SparsityRecorder()
    model.fit(
        data.x_train,
        data.y_train,
        batch_size=batch_size,
        epochs=epochs,
        callbacks=[keras_trim.UpdatePruningStep(), recorder],
    )
    report = keras_trim.sparsity_report(model)  # while the weights still have targets
    keras_trim.strip_pruning(model)
    pruned = measure(model, data)

    steps = range(1, len(recorder.sparsities) + 1)
    asked = [schedule(step)[1] for step in steps]
    plots.plot_schedule(axes[0], steps, asked, recorder.sparsities)
    plots.plot_weight_histogram(axes[1], before, _concatenate(pruned_variables))
    columns = {
        f"dense\n(after {epochs} epochs)": dense,
        f"pruned at once\n({seconds:.0f} seconds)": at_once,
        f"pruned\n(after {epochs} more)": pruned,
    }
    return make_table(data.name, columns), report


def prune_copy(model, data):
    """Prunes a copy of a trained model in one shot.

    Returns:
        Tuple of its `Measurements` and the seconds that pruning took.
    """
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    compile_model(copy)
    start = time.perf_counter()
    images = data.x_train[:_NUM_CALIBRATION]
    keras_trim.prune(copy, _FINAL_SPARSITY, calibration_data=images, batch_size=128)
    seconds = time.perf_counter() - start
    return measure(copy, data), seconds


def _parse_arguments(argv):
    parser = argparse.ArgumentParser(
        prog="python -m keras_trim.demo",
        description="Trains a small CNN, prunes 80 % of it while it trains on, and compares.",
    )
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        help=f"an .npz file with the arrays {', '.join(_KEYS)}, as MNIST's is; "
        "without it, the digits that come with scikit-learn",
    )
    parser.add_argument("--output-dir", type=pathlib.Path, default=pathlib.Path("demo_output"))
    parser.add_argument(
        "--epochs",
        type=int,
        help="epochs of dense training, and then again of pruning (default: 20; 2 if there are "
        "more than 10,000 images)",
    )
    args = parser.parse_args(argv)
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"--epochs must be at least 1, not {args.epochs}")
    return args


def load_digits():
    """Loads the 1,797 handwritten digits of scikit-learn. Every fifth is for testing."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            'the digits come with scikit-learn: pip install "keras-trim[demo]", or give other '
            f"images by --data. Received: {error}"
        ) from error
    x, y = datasets.load_digits(return_X_y=True)
    x = _to_images(x.reshape(-1, 8, 8), x.max())
    is_test = np.arange(len(y)) % 5 == 4
    return Data("scikit-learn digits", x[~is_test], y[~is_test], x[is_test], y[is_test])


def load_npz(path):
    """Loads images from a file in MNIST's format.

    Raises:
        ValueError: with one line that says what is wrong with the file.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz file")
    try:
        with np.load(path) as archive:
            missing = [key for key in _KEYS if key not in archive]
            if missing:
                raise ValueError(f"it lacks the arrays {', '.join(missing)}")
            x_train, y_train, x_test, y_test = (np.asarray(archive[key]) for key in _KEYS)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    for x, y in ((x_train, y_train), (x_test, y_test)):
        if x.ndim != 3 or min(x.shape) < 4 or x.shape[1:] != x_train.shape[1:]:
            raise ValueError(
                f"{path}: images must be of one shape (count, height, width) and 4 pixels or more "
                f"wide. Received: x_train of shape {x_train.shape}, x_test {x_test.shape}"
            )
        if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
            raise ValueError(
                f"{path}: there must be one integer class per image. "
                f"Received: y of shape {y.shape} and dtype {y.dtype} for {len(x)} images"
            )
    scale = x_train.max()
    return Data(path.name, _to_images(x_train, scale), y_train, _to_images(x_test, scale), y_test)


def _to_images(x, scale):
    return (x / scale).astype("float32")[..., np.newaxis]


def build_model(data):
    """Builds a CNN with two convolutions and two dense layers."""
    return keras.Sequential(
        [
            keras.Input(data.x_train.shape[1:]),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(int(data.y_train.max()) + 1),
        ]
    )


def compile_model(model):
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def measure(model, data):
    """Measures a model on the test images, and the sizes of its files."""
    values = [ops.convert_to_numpy(variable) for variable in model.variables]
    sizes = keras_trim.size_table(model, ("h5", "gzip", "ktrim"))
    return Measurements(
        accuracy=model.evaluate(data.x_test, data.y_test, verbose=0, return_dict=True)["accuracy"],
        num_weights=sum(value.size for value in values),
        num_nonzero=sum(np.count_nonzero(value) for value in values),
        num_bytes=sizes["h5"].num_bytes,
        num_bytes_gzipped=sizes["gzip"].num_bytes,
        num_bytes_ktrim=sizes["ktrim"].num_bytes,
    )


def make_table(name, columns):
    """Makes the table that compares models.

    Args:
        name: String. Name of the data.
        columns: Dict: heading -> `Measurements`.
    """
    measured = list(columns.values())
    table = Table(title=f"{name}, {measured[0].num_weights:,} weights")
    table.add_column("")
    for heading in columns:
        table.add_column(heading, justify="right")
    for heading, field, style in (
        ("test accuracy", "accuracy", ".2%"),
        ("non-zero weights", "num_nonzero", ","),
        ("weights file, bytes", "num_bytes", ","),
        ("gzip -9 of it, bytes", "num_bytes_gzipped", ","),
        ("as .ktrim, bytes", "num_bytes_ktrim", ","),
    ):
        table.add_row(heading, *(format(getattr(m, field), style) for m in measured))
    return table


def _concatenate(variables):
    return np.concatenate([np.ravel(ops.convert_to_numpy(variable)) for variable in variables])


if __name__ == "__main__":
    sys.exit(main())
