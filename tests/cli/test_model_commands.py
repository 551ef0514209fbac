"""The commands that write or evaluate models."""

import keras
import numpy as np
import pytest
from commands import error_of, fill, run, run_json

import keras_trim
from keras_trim.exporters.verification import Converted
from keras_trim_cli import comparison, summary

BACKEND = keras.backend.backend()


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path)


def _kernels(path):
    model = keras.models.load_model(path) if path.suffix != ".ktrim" else keras_trim.load(path)
    return [keras.ops.convert_to_numpy(model.get_layer(name).kernel) for name in ("conv", "out")]


@pytest.mark.parametrize("name", ["new.keras", "new.h5", "new.ktrim"])
def test_prune(folder, name):
    before = (folder / "dense.keras").read_bytes()
    result = run_json("prune", folder / "dense.keras", folder / name, "--sparsity", 0.75)
    assert (folder / "dense.keras").read_bytes() == before
    assert result["pruned"] == {"parameters": 504, "zeros": 378, "sparsity": 0.75}
    for kernel, dense in zip(
        _kernels(folder / name), _kernels(folder / "dense.keras"), strict=True
    ):
        kept = np.abs(dense) > np.quantile(np.abs(dense), 0.75)
        np.testing.assert_array_equal(kernel, np.where(kept, dense, 0))
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == []


def test_prune_in_place_tells_both_sizes(folder):
    result = run_json("prune", folder / "pruned.ktrim", folder / "pruned.ktrim", "-s", 0.9, "-f")
    assert result["bytes"]["after"] == (folder / "pruned.ktrim").stat().st_size
    assert result["bytes"]["before"] > result["bytes"]["after"]


def test_prune_keeps_how_the_model_was_compiled_unless_told(folder):
    run("prune", folder / "dense.keras", folder / "a.keras", "-s", 0.5)
    assert isinstance(keras.models.load_model(folder / "a.keras").optimizer, keras.optimizers.SGD)
    run("prune", folder / "dense.keras", folder / "b.keras", "-s", 0.5, "--no-compile")
    assert not keras.models.load_model(folder / "b.keras").compiled


def test_prune_patterns(folder):
    run("prune", folder / "dense.keras", folder / "a.keras", "--pattern", "1:4")
    _, dense = _kernels(folder / "a.keras")
    assert (np.count_nonzero(dense.reshape(-1, 4, 4), axis=1) <= 1).all()
    run("prune", folder / "dense.keras", folder / "b.keras", "-s", 0.5, "--block", "1x4")
    _, dense = _kernels(folder / "b.keras")
    assert set(np.count_nonzero(dense, axis=1)) == {0, 4}


def test_prune_on_examples(folder):
    x = np.random.default_rng(0).random((64, 8, 8, 3), "float32")
    np.save(folder / "x.npy", x)
    np.savez(folder / "x.npz", x)
    path = folder / "data.keras"
    result = run_json("prune", folder / "dense.keras", path, "-s", 0.5, "-c", folder / "x.npy")
    assert result["pruned"]["zeros"] == 252
    for kernel, dense in zip(_kernels(path), _kernels(folder / "dense.keras"), strict=True):
        assert (kernel != dense)[kernel != 0].any()  # the remaining weights compensate
    arguments = ("-c", folder / "x.npz", "--examples", 32, "-o", folder / "s.json")
    options = ("--plot", folder / "heat.png", "--sparsities", "0.5,0.9", "--method", "magnitude")
    result = run_json("sensitivity", folder / "dense.keras", *arguments, *options)
    assert [row["sparsity"] for row in result["rows"]] == [0.5, 0.9] * 2
    assert result["settings"]["examples"] == 32
    assert (folder / "heat.png").read_bytes().startswith(b"\x89PNG")
    arguments = ("--budget", "zeros=0.75", "--sensitivity", folder / "s.json")
    result = run_json("prune", folder / "dense.keras", folder / "b.keras", *arguments)
    assert abs(result["pruned"]["zeros"] - 0.75 * 504) <= 1
    arguments = ("--budget", "milliseconds=1e9", "--sensitivity", folder / "s.json")
    result = run_json("prune", folder / "dense.keras", folder / "t.keras", *arguments)
    assert result["pruned"]["zeros"] == 0
    (folder / "bad.npy").write_bytes(b"no array")
    line = error_of(
        "prune", folder / "dense.keras", folder / "c.keras", "-s", 0.5, "-c", folder / "bad.npy"
    )
    assert "must be a .npy or .npz file" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --sparsity, or --pattern"),
        (["--budget", "zeros=0.5"], "--budget and --sensitivity go together"),
        (["--budget", "zeros:0.5", "--sensitivity", "s"], "like zeros=0.9, bytes=200000 or"),
        (["--budget", "zeros=1", "--sensitivity", "s", "-s", "0.5"], "drop the others"),
        (
            ["--budget", "zeros=0.5", "--sensitivity", "s", "--distribution", "erk"],
            "drop --distribution",
        ),
        (["-s", "80"], "below 1; 80 % is 0.8"),
        (["-s", "80%"], "'80%' is no number: 80 % is 0.8"),
        (["-s", "nan"], "at least 0 and below 1"),
        (["-s", "0.5", "--block", "4"], "--block must be like 2x4, not '4'"),
        (["-s", "0.5", "--block", "0x4"], "at least 1"),
        (["--pattern", "4:2"], "N < M"),
        (["--pattern", "2:4", "--block", "4x4"], "one pattern"),
        (["--pattern", "2:4", "-s", "0.5"], "drop --sparsity"),
        (["-s", "0.5", "--pooling", "median"], "AVG or MAX"),
        (["-s", "0.5", "--distribution", "sensitivity"], "add --calibration"),
        (["-s", "0.5", "--method", "wanda"], "--method wanda needs examples"),
        (["--budget", "zeros=0.5", "--sensitivity", "missing.json"], "no file missing.json"),
    ],
)
def test_prune_usage(folder, options, message):
    line = error_of("prune", folder / "dense.keras", folder / "x.keras", *options, code=2)
    assert message in line
    assert "Try: " in line


def test_no_hint_where_it_is_none(folder):
    line = error_of("prune", folder / "dense.keras", folder / "x.keras", "-s", "1.0", code=2)
    assert "below 1. Try: " in line


def test_prune_what_cannot_be(folder):
    arguments = ("prune", folder / "dense.keras", folder / "x.keras", "-s", 0.5)
    assert "cannot prune" in error_of(*arguments, "--block", "99x99")
    assert not (folder / "x.keras").exists()


def test_compress_and_decompress_lose_nothing(folder):
    result = run_json("compress", folder / "pruned.keras", folder / "new.ktrim")
    assert result["bytes"]["after"] == (folder / "new.ktrim").stat().st_size
    assert result["bytes"]["before"] == (folder / "pruned.keras").stat().st_size
    assert result["largest_error"] == 0
    run("decompress", folder / "new.ktrim")
    difference = run_json("diff", folder / "pruned.keras", folder / "new.keras", "--exit-code")
    assert difference["equal"] is True
    assert difference["paired_by"] == "path"


def test_compress_rounds_and_tells(folder):
    result = run_json("compress", folder / "pruned.keras", folder / "x.ktrim", "--values", "int8")
    difference = run_json("diff", folder / "pruned.keras", folder / "x.ktrim")
    largest = max(weight["max_change"] for weight in difference["weights"])
    assert result["largest_error"] == pytest.approx(largest, rel=1e-3)
    assert 0 < largest < 0.01
    assert difference["a"]["zeros"] == difference["b"]["zeros"]


def test_commands_tell_of_the_optimizer(folder):
    model = keras.models.load_model(folder / "pruned.keras")
    model.compile("adam", "mse")
    model.fit(np.zeros((4, 8, 8, 3)), np.zeros((4, 4)), verbose=0)
    model.save(folder / "trained.keras")
    out = run("compress", folder / "trained.keras").stdout
    assert "optimizer's state was left out: --optimizer keeps it" in out
    kept = run_json("compress", folder / "trained.keras", folder / "all.ktrim", "--optimizer")
    assert kept["optimizer_left_out"] is False
    assert kept["bytes"]["after"] > (folder / "trained.ktrim").stat().st_size
    prune = "prune", folder / "trained.keras"
    out = run(*prune, folder / "less.ktrim", "--sparsity", "0.5").stdout
    assert "optimizer's state was left out: a .keras file keeps it" in out
    kept = run_json(*prune, folder / "kept.keras", "--sparsity", "0.5")
    assert kept["optimizer_left_out"] is False


def test_compress_to_an_archive_that_stock_keras_loads(folder):
    path = folder / "smaller.keras"
    run("compress", folder / "pruned.keras", path, "--keras")
    assert path.stat().st_size < (folder / "pruned.keras").stat().st_size
    for a, b in zip(_kernels(path), _kernels(folder / "pruned.keras"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "pruned.keras", "x.keras"], "must end in .ktrim, not 'x.keras'; for a"),
        (["compress", "pruned.keras", "--keras"], "--keras needs OUTPUT"),
        (["compress", "dense.h5", "x.keras", "--keras"], "recompresses a .keras file"),
        (["compress", "pruned.keras", "x.ktrim", "--values", "int4"], "'int4'"),
        (["decompress", "pruned.keras"], "must be a .ktrim file"),
        (["export", "pruned.keras", "model.bin"], "give --format"),
        (["export", "pruned.keras", "m.onnx", "--weights", "int8"], "drop --weights"),
        (["export", "pruned.keras", "m.onnx", "--format", "litert"], "ends as onnx files do"),
        (["export", "pruned.keras", "m.ov", "--format", "openvino"], "must end in .xml"),
        (
            ["sensitivity", "pruned.keras", "-c", "pruned.keras", "--plot", "heat.pdf"],
            "ends in .png, not 'heat.pdf'",
        ),
        (["decompress", "pruned.ktrim", "x.ktrim"], "must be a .keras or .h5 file"),
        (["report", "pruned.keras", "--html", "x.ktrim"], "ends in .html, not 'x.ktrim'"),
        (["check", "pruned.keras", "--target", "tpu"], "'tpu'"),
        (["diff", "pruned.keras"], "Missing argument"),
        (["report", "nowhere.keras"], "does not exist"),
        (["flatten"], "No such command"),
    ],
)
def test_usage(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    assert message in error_of(*arguments, code=2)


def test_diff_tells_which_weights_and_by_how_much(folder):
    pair = (folder / "dense.keras", folder / "pruned.keras")
    result = run_json("diff", *pair, "--exit-code", code=1)
    weights = {weight["path"]: weight for weight in result["weights"]}
    conv, _ = _kernels(folder / "dense.keras")
    pruned, _ = _kernels(folder / "pruned.keras")
    row = weights["conv/kernel"]
    assert row["status"] == "changed"
    assert (row["changed"], row["zeroed"], row["revived"]) == (162, 162, 0)
    assert row["max_change"] == pytest.approx(np.abs(conv - pruned).max())
    assert row["relative_change"] == pytest.approx(
        np.linalg.norm(conv - pruned) / np.linalg.norm(conv)
    )
    assert weights["norm/gamma"]["status"] == "same"
    assert result["b"]["zeros"] - result["a"]["zeros"] == 378
    assert not result["equal"]
    text = run("diff", *pair).stdout
    assert "2 weights differ" in text
    assert "norm/gamma" not in text
    assert "norm/gamma" in run("diff", folder / "dense.keras", folder / "dense.h5", "--all").stdout


def test_diff_of_models_of_other_names_and_shapes(folder):
    def save(name, *units):
        layers = [keras.layers.Dense(size) for size in units]
        keras.Sequential([keras.Input((4,)), *layers]).save(folder / name)

    save("a.keras", 3, 2)
    save("b.keras", 3, 2)  # dense_2, dense_3
    save("c.keras", 3)
    assert run_json("diff", folder / "a.keras", folder / "b.keras")["paired_by"] == "order"
    weights = run_json("diff", folder / "a.keras", folder / "c.keras")["weights"]
    assert {weight["status"] for weight in weights} == {"only in A", "only in B"}


def test_diff_counts_nan_and_infinity_as_values(folder):
    for name, values in (("a", [np.nan, np.inf, 1]), ("b", [np.nan, np.inf, -np.inf])):
        model = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(1, use_bias=False, name="d")], name="m"
        )
        model.layers[0].kernel.assign(np.array(values, "float32")[:, None])
        model.save(folder / f"{name}.keras")
    (weight,) = run_json("diff", folder / "a.keras", folder / "b.keras")["weights"]
    assert (weight["changed"], weight["max_change"]) == (1, None)
    run("diff", folder / "a.keras", folder / "b.keras")


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_values_of_types_that_numpy_lacks_are_compared(dtype):
    if "float8" in dtype and BACKEND != "jax":
        pytest.skip("Keras makes or reads no such weights on this backend")

    def weight(values):
        variable = keras.Variable(keras.ops.cast(values, dtype), dtype=dtype, trainable=False)
        return summary.Weight("w", (3,), dtype, 0, None, variable)

    a, b = weight([1.0, 2.0, float("nan")]), weight([1.0, 0.0, float("nan")])
    result = comparison.compare(a, b)
    assert (result.changed, result.zeroed, result.max_change) == (1, 1, 2.0)


def test_export(folder):
    pytest.importorskip("safetensors")
    result = run_json("export", folder / "pruned.keras", folder / "model.safetensors")
    assert result["format"] == "safetensors"
    assert result["bytes"]["after"] == (folder / "model.safetensors").stat().st_size > 2000


@pytest.mark.parametrize("name", {"tensorflow": ["m.tflite"], "torch": ["m.onnx"]}.get(BACKEND, []))
def test_export_for_other_runtimes(folder, name):
    result = run_json("export", folder / "pruned.keras", folder / name)
    assert result["format"] == {"m.tflite": "litert", "m.onnx": "onnx"}[name]
    assert result["bytes"]["after"] == (folder / name).stat().st_size > 1000


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the converter runs under TensorFlow")
def test_export_in_int8(folder):
    shape = keras.models.load_model(folder / "dense.keras").input_shape
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((8, *shape[1:])))
    arguments = ["export", folder / "pruned.keras", folder / "m.tflite", "--representative-data"]
    result = run_json(*arguments, folder / "x.npy")
    assert result["weights"] == "int8"
    assert result["accuracy"]["num_examples"] == 8
    assert 0 < result["accuracy"]["relative_error"] < 0.5


def test_bench(folder):
    arguments = ("--seconds", 0, "--against", "none")
    result = run_json("bench", folder / "pruned.keras", *arguments, "--batch", 2)
    assert list(result["milliseconds"]) == [
        "model.predict",
        "model.predict_on_batch",
        "keras-trim",
    ]
    assert max(result["largest_difference"].values()) < 1e-5
    assert result["batch"] == 2
    assert result["sparsity"] == 0.75
    assert result["processor"]
    assert [row["operation"] for row in result["layers"] if row["kept"]] == ["Convolution", "Dense"]
    printed = run("bench", folder / "pruned.keras", *arguments, "--layers").stdout
    assert "times as fast as model.predict" in printed
    assert result["layers"][0]["layer"] in printed
    model = keras.models.load_model(folder / "pruned.keras")
    keras_trim.inference.Engine(model).save(folder / "m.engine")
    alone = run_json("bench", folder / "m.engine", "--seconds", 0)
    assert list(alone["milliseconds"]) == ["keras-trim"]
    assert "which `keras-trim bench` runs" in error_of("report", folder / "m.engine")
    text = keras.Input((1,), dtype="string", name="words")
    keras.Model(text, keras.layers.Flatten()(text)).save(folder / "text.keras")
    assert "Received: input 'words' of dtype string" in error_of("bench", folder / "text.keras")


@pytest.mark.filterwarnings("default::UserWarning")
def test_export_warns_of_the_file_that_the_user_named(folder, monkeypatch):
    made = Converted(b"data", warnings=["it is odd"])
    monkeypatch.setattr("keras_trim.exporters.safetensors.convert", lambda *_: made)
    monkeypatch.chdir(folder)
    result = run("export", "pruned.keras", "model.safetensors")
    assert result.stderr == "keras-trim: warning: model.safetensors: it is odd.\n"


def test_check_exits_with_what_it_says(folder, force_kernels):
    run("prune", folder / "dense.keras", folder / "nm.keras", "--pattern", "2:4")
    report = run_json("check", folder / "pruned.keras", "--target", "nvidia-2:4", code=1)
    assert report["ok"] is False
    paths = [row["path"].removeprefix("small/") for row in report["rows"]]
    assert paths == ["conv/kernel", "out/kernel"]
    printed = run("check", folder / "pruned.keras", "--target", "xnnpack", code=1).stdout
    assert "run sparsely by xnnpack" in printed
    force_kernels("sparse")
    assert "run sparsely by engine" in run("check", folder / "pruned.keras").stdout
    model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32)])
    keras_trim.prune(model, None, sparsity_m_by_n=(2, 4)).save(folder / "good.keras")
    assert run_json("check", folder / "good.keras", "--target", "nvidia-2:4")["ok"] is True
