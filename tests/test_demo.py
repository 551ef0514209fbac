import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_trim import demo, plots


def _arrays(num_train=64, num_test=16, side=8):
    random = np.random.default_rng(0)
    return {
        "x_train": random.integers(0, 256, (num_train, side, side), "uint8"),
        "y_train": np.arange(num_train, dtype="uint8") % 10,
        "x_test": random.integers(0, 256, (num_test, side, side), "uint8"),
        "y_test": np.arange(num_test, dtype="uint8") % 10,
    }


def _save(folder, **changes):
    """Saves `_arrays()` with some replaced, or left out where `None`."""
    path = folder / "data.npz"
    arrays = {**_arrays(), **changes}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.mark.slow
def test_demo_on_digits(tmp_path, capsys):
    assert demo.main(["--epochs", "2", "--output-dir", str(tmp_path / "new" / "folder")]) == 0

    output = capsys.readouterr().out
    assert "sparsity: 0.8000" in output  # in the progress bar
    assert "of which 80.00% are zero" in output  # in the report
    rows = {
        row[0].strip(): row[1:]
        for row in re.findall(r"│ (.+?) │ +([\d,.]+)%? │ +([\d,.]+)%? │ +([\d,.]+)%? │", output)
    }
    accuracies = [float(number) for number in rows["test accuracy"]]
    assert all(50 < accuracy <= 100 for accuracy in accuracies)
    nonzero, raw, zipped, trimmed = (
        [int(number.replace(",", "")) for number in rows[heading]]
        for heading in (
            "non-zero weights",
            "weights file, bytes",
            "gzip -9 of it, bytes",
            "as .ktrim, bytes",
        )
    )
    # 80 % of the 52,768 weights in kernels; the 234 biases stay.
    assert nonzero[0] > 52_900
    assert raw[0] == raw[1] == raw[2] > 4 * 53_002
    for pruned in (1, 2):  # at once, and in training
        assert 0.2 * 52_768 <= nonzero[pruned] <= 0.2 * 52_768 + 234 + 4
        assert zipped[pruned] < 0.4 * zipped[0] < 0.4 * raw[0]
        assert trimmed[pruned] < zipped[pruned] / 1.2
    picture = tmp_path / "new" / "folder" / "pruning.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in output


def test_compare_draws_the_zeros_that_were_counted(tmp_path):
    data = demo.load_npz(_save(tmp_path))
    _, axes = plots.make_figure(2)
    _, report = demo.compare(data, epochs=3, batch_size=16, axes=axes)

    size = sum(row.size for row in report.pruned_rows)
    asked, reached = (line.get_xydata() for line in axes[0].lines)
    assert asked[:, 0].tolist() == reached[:, 0].tolist() == list(range(1, 13))
    # 12 steps: masks are updated at every one of them, until step 8.
    assert reached[:, 1] == pytest.approx(asked[:, 1], abs=len(report.pruned_rows) / size)
    assert reached[-1, 1] == report.sparsity == pytest.approx(0.8, abs=1e-4)
    assert "80.0%" in axes[1].texts[0].get_text()


def test_measure_counts_and_leaves_the_optimizer_out(tmp_path):
    data = demo.load_npz(_save(tmp_path))
    model = demo.build_model(data)
    demo.compile_model(model)
    dense = demo.measure(model, data)
    assert 0 <= dense.accuracy <= 1
    assert dense.num_weights == model.count_params()

    model.fit(data.x_train, data.y_train, verbose=0)  # now the optimizer has momenta
    kernel = model.layers[-1].kernel
    kernel.assign(ops.zeros(kernel.shape))
    zeroed = demo.measure(model, data)
    nonzero = sum(np.count_nonzero(value) for value in model.get_weights())
    assert zeroed.num_nonzero == nonzero < model.count_params() - 1000
    assert zeroed.num_bytes == dense.num_bytes
    assert zeroed.num_bytes_gzipped < dense.num_bytes_gzipped + 4 * 300


def test_load_npz_scales_images(tmp_path):
    arrays = _arrays()
    data = demo.load_npz(_save(tmp_path))
    assert data.x_train.shape == (64, 8, 8, 1)
    assert data.x_test.dtype == "float32"
    assert data.x_test[3, 2, 1, 0] == pytest.approx(arrays["x_test"][3, 2, 1] / 255)
    assert data.y_test.tolist() == arrays["y_test"].tolist()


def test_load_digits_keeps_the_test_images_apart():
    data = demo.load_digits()
    assert (len(data.x_train), len(data.x_test)) == (1438, 359)
    assert data.x_train.max() == 1
    train = {image.tobytes() for image in data.x_train}
    assert not any(image.tobytes() in train for image in data.x_test)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None, "x_test": None}, "lacks the arrays x_test, y_test"),
        ({"x_train": np.zeros((64, 64))}, "x_train of shape (64, 64)"),
        ({"x_test": np.zeros((16, 9, 9))}, "x_test (16, 9, 9)"),
        ({"y_train": np.zeros(3, "int32")}, "shape (3,)"),
        ({"y_train": np.zeros(64)}, "dtype float64"),
        ({"x_train": np.array([None])}, "cannot read"),
    ],
)
def test_wrong_arrays(tmp_path, capsys, changes, message):
    path = _save(tmp_path, **changes)
    assert demo.main(["--data", str(path), "--output-dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert str(path) in line


def test_data_that_is_no_npz_file(tmp_path, capsys):
    path = tmp_path / "digits.csv"
    path.write_text("1,2,3")
    assert demo.main(["--data", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path} is not an .npz file" in line


@pytest.mark.usefixtures("one_backend")
def test_data_that_is_not_there_from_the_command_line(tmp_path):
    path = tmp_path / "missing.npz"
    result = subprocess.run(
        [sys.executable, "-m", "keras_trim.demo", "--data", str(path)],
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend(), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert f"keras_trim.demo: there is no file {path}" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("matplotlib.figure", 'pip install "keras-trim[plots]"'),
        ("sklearn", 'pip install "keras-trim[demo]"'),
    ],
)
def test_missing_package(tmp_path, capsys, monkeypatch, module, command):
    monkeypatch.setitem(sys.modules, module, None)
    assert demo.main(["--output-dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert command in line


def test_epochs_must_be_positive(capsys):
    with pytest.raises(SystemExit) as caught:
        demo.main(["--epochs", "0"])
    assert caught.value.code == 2
    assert "--epochs must be at least 1, not 0" in capsys.readouterr().err
