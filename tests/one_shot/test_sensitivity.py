import keras
import numpy as np
import pytest
from conftest import make_mlp, values

import keras_trim
from keras_trim import Allocation, Sensitivity
from keras_trim.one_shot.budget import stored_bytes
from keras_trim.one_shot.sensitivity import SensitivityRow


def measure(model, x, **arguments):
    arguments = {"sparsities": (0.5, 0.9), "method": "magnitude"} | arguments
    return keras_trim.sensitivity(model, x, **arguments)


def test_each_weight_is_pruned_alone(mlp, data):
    x, _ = data
    before = mlp.get_weights()
    result = measure(mlp, x)
    for a, b in zip(mlp.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [(row.path, row.sparsity) for row in result.rows] == [
        ("hidden/kernel", 0.5),
        ("hidden/kernel", 0.9),
        ("out/kernel", 0.5),
        ("out/kernel", 0.9),
    ]
    dense = values(mlp(x))
    keras_trim.prune(mlp, distribution={"out": 0.9})
    error = np.mean((values(mlp(x)) - dense) ** 2) / dense.var()
    np.testing.assert_allclose(result.rows[-1].change, error, rtol=1e-4)
    assert "hidden/kernel" in str(result)


def test_reconstruction_hurts_less(mlp, rng):
    x = rng.standard_normal((256, 3)) @ rng.standard_normal((3, 8))
    x = (x + 0.1 * rng.standard_normal(x.shape)).astype("float32")
    totals = [
        sum(row.change for row in measure(mlp, x, method=method).rows)
        for method in ("magnitude", "reconstruct")
    ]
    assert totals[1] < 0.5 * totals[0]


def test_a_metric(mlp, data):
    x, y = data

    def mae(y, outputs):
        return np.abs(y - outputs).mean()

    result = measure(mlp, x, y=y, metric=mae)
    assert result.metric == "mae"
    np.testing.assert_allclose(result.dense, mae(y, values(mlp(x))), rtol=1e-5)
    keras_trim.prune(mlp, distribution={"hidden": 0.5})
    change = mae(y, values(mlp(x))) - result.dense
    np.testing.assert_allclose(result.rows[0].change, change, rtol=1e-4)
    with pytest.raises(ValueError, match="Give both `y` and `metric`.*Received"):
        measure(mlp, x, y=y)


def test_a_metric_of_keras_starts_anew_for_each_weight(mlp, data):
    x, y = data
    result = measure(mlp, x, y=y, metric=keras.metrics.MeanAbsoluteError())
    np.testing.assert_allclose(result.dense, np.abs(y - values(mlp(x))).mean(), rtol=1e-5)
    keras_trim.prune(mlp, distribution={"out": 0.9})
    change = np.abs(y - values(mlp(x))).mean() - result.dense
    np.testing.assert_allclose(result.rows[-1].change, change, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsities": ()}, r"`sparsities` must be some numbers.*Received"),
        ({"sparsities": 0.5}, r"`sparsities` must be some numbers.*Received"),
        ({"sparsities": (50,)}, "0.5 for 50 %.*Received: sparsities=50"),
        ({"method": "best"}, "`method` must be one of.*Received: method='best'"),
        ({"y": np.zeros(3), "metric": lambda y, p: 0.0}, "`y` must have a label.*3 labels for"),
        ({"y": "same", "metric": lambda y, p: y == 0}, "must return one number.*Received"),
        ({"y": "same", "metric": lambda y, p: np.nan}, "that is finite.*which returned nan"),
    ],
)
def test_arguments_that_are_wrong(mlp, data, arguments, message):
    if isinstance(arguments.get("y"), str):
        arguments = arguments | {"y": data[1]}
    with pytest.raises(ValueError, match=message):
        measure(mlp, data[0], **arguments)


def test_data_in_the_form_of_tensorflows_converter(mlp, data):
    copies, x = [keras.models.clone_model(mlp) for _ in range(2)], data[0][:64]
    for copy, given in zip(copies, (x, lambda: iter([x[:32], x[32:]])), strict=True):
        copy.set_weights(mlp.get_weights())
        keras_trim.prune(copy, 0.5, calibration_data=given)
    for first, second in zip(*(copy.get_weights() for copy in copies), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-4)


def test_inputs_with_labels_are_told(mlp, data):
    with pytest.raises(ValueError, match="`x` must be inputs of the model, without labels"):
        measure(mlp, data)
    with pytest.raises(ValueError, match="`calibration_data` must be inputs.*without labels"):
        keras_trim.prune(mlp, 0.5, calibration_data=data)


def test_padding_does_not_count_in_the_error(rng):
    words = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(20, 8, mask_zero=True)(words)
    model = keras.Model(words, keras.layers.Dense(3, name="out")(x))
    x = rng.integers(1, 20, (16, 5)).astype("int32")
    errors = [
        [row.change for row in measure(model, np.pad(x, ((0, 0), (0, more)))).rows]
        for more in (0, 4)
    ]
    np.testing.assert_allclose(errors[0], errors[1], rtol=1e-4)


def test_it_resumes(mlp, data, tmp_path, monkeypatch):
    path = tmp_path / "sensitivity.json"
    whole = measure(mlp, data[0])
    calls = []
    from keras_trim.one_shot.calibration import Calibration

    prune = Calibration.prune_by_magnitude

    def counted(self, job):
        calls.append(job.layer.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return prune(self, job)

    monkeypatch.setattr(Calibration, "prune_by_magnitude", counted)
    with pytest.raises(KeyboardInterrupt):
        measure(mlp, data[0], path=path)
    assert len(Sensitivity.load(path).rows) == 2
    resumed = measure(mlp, data[0], path=path)
    assert calls == ["hidden"] * 2 + ["out"] * 3
    assert resumed == whole == Sensitivity.load(path)
    with pytest.raises(ValueError, match="`path` holds results of other settings.*Received"):
        measure(mlp, data[0], path=path, method="wanda")


def made(**changes):
    """Weights a, of 100, and b, of 300, with their changes at 50 and 90 %."""
    sizes = {"a": (10, 10), "b": (10, 30)}
    rows = [
        SensitivityRow(path, sizes[path], sparsity, change)
        for path, both in changes.items()
        for sparsity, change in zip((0.5, 0.9), both, strict=True)
    ]
    return Sensitivity(rows, "output error", 0.0)


def test_a_budget_of_zeros_by_hand():
    # Per weight saved: a 0.02 then 0.2; b 0.01 then 0.1.
    sensitivity = made(a=(1.0, 9.0), b=(1.5, 13.5))
    allocation = keras_trim.budget(sensitivity, zeros=0.5)  # b to 150, a to 50
    assert allocation.sparsities == pytest.approx({"a": 0.5, "b": 0.5})
    allocation = keras_trim.budget(sensitivity, zeros=0.25)  # 100 of b
    assert allocation.sparsities == pytest.approx({"a": 0.0, "b": 1 / 3})
    allocation = keras_trim.budget(sensitivity, zeros=0.65)  # 60 more of b
    assert allocation.sparsities == pytest.approx({"a": 0.5, "b": 0.7})
    with pytest.raises(ValueError, match="cannot be met: at 90.0%.*Received: zeros=0.95"):
        keras_trim.budget(sensitivity, zeros=0.95)
    with pytest.raises(ValueError, match="Give one of `zeros`.*Received"):
        keras_trim.budget(sensitivity)
    with pytest.raises(ValueError, match="0.8 for 80 %.*Received: zeros=80"):
        keras_trim.budget(sensitivity, zeros=80)
    with pytest.raises(ValueError, match="must be a positive number.*Received: bytes=-1"):
        keras_trim.budget(sensitivity, bytes=-1)
    with pytest.raises(ValueError, match="`sensitivity` must be what.*Received"):
        keras_trim.budget("sensitivity.json", zeros=0.5)


@pytest.mark.parametrize("higher_is_better", [False, True])
def test_a_budget_for_a_metric_that_pruning_improved(higher_is_better):
    """Weight a gains more than b loses, so which way is worse cannot be told from the changes."""
    sign = -1 if higher_is_better else 1
    rows = [
        SensitivityRow(path, (10, 10), sparsity, sign * change * sparsity)
        for path, change in (("a", -0.3), ("b", 0.1))
        for sparsity in (0.5, 0.9)
    ]
    table = Sensitivity(rows, "own metric", 0.5, {})
    allocation = keras_trim.budget(table, zeros=0.45, higher_is_better=higher_is_better)
    assert allocation.sparsities == pytest.approx({"a": 0.9, "b": 0.0})


def test_a_budget_in_bytes_is_kept():
    sensitivity = made(a=(1.0, 9.0), b=(1.5, 13.5))
    allocation = keras_trim.budget(sensitivity, bytes=800)
    stored = sum(
        stored_bytes(size, allocation.sparsities[path])
        for path, size in {"a": 100, "b": 300}.items()
    )
    assert stored <= 800
    assert stored == pytest.approx(800)


def test_a_budget_of_milliseconds():
    sensitivity = made(a=(1.0, 9.0), b=(1.5, 13.5))
    times = {"a": {0: 4.0, 0.5: 2.0, 0.9: 1.0}, "b": {0: 1.0, 0.5: 1.0, 0.9: 1.0}}
    allocation = keras_trim.budget(sensitivity, milliseconds=3.0, times=times)
    # Zeros in b save no time; 2 ms of a are needed.
    assert allocation.sparsities == pytest.approx({"a": 0.5, "b": 0.0})
    times["a"] = {0: 4.0, 0.25: 3.9, 0.5: 2.0, 0.9: 1.0}  # a line would end at 3 ms with 0.25
    allocation = keras_trim.budget(sensitivity, milliseconds=4.0, times=times)
    assert allocation.sparsities["a"] == pytest.approx(0.25 + 0.25 * 0.9 / 1.9)
    with pytest.raises(ValueError, match="needs `times`.*Received: None"):
        keras_trim.budget(sensitivity, milliseconds=3.0)


def test_prune_takes_a_budget(data):
    model = make_mlp()
    result = measure(model, data[0], sparsities=(0.25, 0.5, 0.75, 0.9))
    allocation = keras_trim.budget(result, zeros=0.6)
    assert isinstance(allocation, Allocation)
    keras_trim.prune(model, distribution=allocation)
    zeros = sum(np.count_nonzero(values(layer.kernel) == 0) for layer in model.layers)
    assert abs(zeros - 0.6 * 144) <= 1


@pytest.mark.parametrize("sparsity", [0.6, 0.97])
def test_prune_by_sensitivity_is_pruning_with_its_budget(sparsity, mlp, data):
    x, _ = data
    weights, sparsities = mlp.get_weights(), (0.5, 0.75, 0.875, 0.95)
    if sparsity > 0.95:
        sparsities = (*sparsities, sparsity, (1 + sparsity) / 2)
    table = keras_trim.sensitivity(mlp, x, sparsities=sparsities)
    allocation = keras_trim.budget(table, zeros=sparsity)
    keras_trim.prune(mlp, distribution=allocation, calibration_data=x)
    expected = mlp.get_weights()
    mlp.set_weights(weights)
    keras_trim.prune(mlp, sparsity, distribution="sensitivity", calibration_data=x)
    for own, other in zip(mlp.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(own, other)
    rows = keras_trim.sparsity_report(mlp).pruned_rows
    assert sum(row.zeros for row in rows) == pytest.approx(
        sparsity * sum(row.size for row in rows), abs=len(rows)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 0.5}, "examples.*Received: calibration_data=None"),
        ({"calibration_data": True}, "`sparsity`"),
        ({"sparsity_m_by_n": (2, 4), "calibration_data": True}, "N:M.*distribution='sensitivity'"),
        ({"sparsity": 0.5, "calibration_data": 0}, "`calibration_data` must be several examples"),
    ],
)
def test_prune_by_sensitivity_with_wrong_arguments(arguments, message, mlp, data):
    if "calibration_data" in arguments:
        given = data[0] if arguments["calibration_data"] else np.zeros_like(data[0])
        arguments = arguments | {"calibration_data": given}
    weights = mlp.get_weights()
    with pytest.raises(ValueError, match=message):
        keras_trim.prune(mlp, distribution="sensitivity", **arguments)
    for own, before in zip(mlp.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(own, before)


def test_weights_of_the_same_path_are_told_apart(rng):
    def tower(scale):
        x = keras.Input((8,))
        dense = keras.layers.Dense(8, name="fc")
        model = keras.Model(x, dense(x))
        dense.kernel.assign(scale * rng.standard_normal((8, 8)))
        return model

    x = keras.Input((8,))
    model = keras.Model(x, tower(100.0)(x) + tower(0.01)(x))
    result = measure(model, rng.standard_normal((64, 8), "float32"), sparsities=(0.25, 0.5, 0.75))
    assert [len(rows) for rows in result.by_weight().values()] == [3, 3]
    keras_trim.prune(model, distribution=keras_trim.budget(result, zeros=0.375))
    zeros = [np.count_nonzero(values(v) == 0) for v in model.variables if len(v.shape) > 1]
    assert zeros == [0, 48]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"c": {0: 1.0}}, "`times` and .* of the same model.*Received: c, for weights a, b"),
        ({"a": {0.5: 1.0}}, "must include sparsity 0.*Received: none of a"),
    ],
)
def test_times_that_do_not_fit(times, message):
    with pytest.raises(ValueError, match=message):
        keras_trim.budget(made(a=(1.0, 9.0), b=(1.5, 13.5)), milliseconds=3.0, times=times)


@pytest.mark.parametrize("text", ["", "[]", '{"rows": [{"shape": [1]}]}', '{"rows": 3}', '{"a": '])
def test_a_damaged_file(text, tmp_path):
    path = tmp_path / "sensitivity.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"damaged.*Received: path={path}"):
        Sensitivity.load(path)


def test_a_path_that_repeats_once_the_name_of_the_model_is_gone(rng):
    x = keras.Input((8,))
    inner = keras.Model(x, keras.layers.Dense(8, name="fc")(x))
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="fc"), inner])
    result = measure(model, rng.standard_normal((64, 8), "float32"))
    allocation = keras_trim.Allocation(
        dict(zip(result.by_weight(), (0.25, 0.75), strict=True)),
    )
    keras_trim.prune(model, distribution=allocation)
    zeros = [np.count_nonzero(values(v) == 0) for v in model.variables if len(v.shape) > 1]
    assert zeros == [16, 48]


def test_a_file_of_another_model_or_other_data(mlp, data, tmp_path):
    path, (x, y) = tmp_path / "sensitivity.json", data
    measure(mlp, x, path=path)
    with pytest.raises(ValueError, match="`path` holds results of.*Received"):
        measure(mlp, x + 1, path=path)
    mlp.layers[0].kernel.assign(mlp.layers[0].kernel + 1)
    with pytest.raises(ValueError, match="`path` holds results of.*Received"):
        measure(mlp, x, path=path)
    path = tmp_path / "metric.json"
    measure(mlp, x, y=y, metric=lambda y, p: p.mean(), path=path)
    with pytest.raises(ValueError, match="`path` holds results of.*Received"):
        measure(mlp, x, y=y, metric=lambda y, p: p.std(), path=path)


def test_a_file_of_another_metric_or_other_labels(mlp, data, tmp_path):
    """All of these are 1 for the dense model."""
    x, _ = data
    path, y = tmp_path / "s.json", mlp.predict(x, verbose=0)

    def measure(*arguments):
        return keras_trim.sensitivity(mlp, x, *arguments, path=path)

    ratio = measure(y, lambda y, outputs: 1 / (1 + np.mean((y - outputs) ** 2)))
    again = measure(y, lambda y, outputs: 1 / (1 + np.mean((y - outputs) ** 2)))
    assert [row.change for row in again.rows] == [row.change for row in ratio.rows]
    for other in (
        (y, lambda y, outputs: 1 - np.mean(np.abs(y - outputs))),
        (y + 1e-6, lambda y, outputs: 1 / (1 + np.mean((y - outputs) ** 2))),
        (y, keras.metrics.R2Score()),
    ):
        with pytest.raises(ValueError, match="other settings"):
            measure(*other)


def test_a_file_keeps_the_rows_that_are_not_asked_for(mlp, data, tmp_path):
    path = tmp_path / "sensitivity.json"
    first = measure(mlp, data[0], sparsities=(0.5,), path=path)
    second = measure(mlp, data[0], sparsities=(0.9,), path=path)
    assert {row.sparsity for row in second.rows} == {0.9}
    saved = Sensitivity.load(path)
    assert all(row in saved.rows for row in [*first.rows, *second.rows])
    assert len(saved.rows) == 4


def test_outputs_that_do_not_vary(mlp, data):
    with pytest.raises(ValueError, match="`x` must be several examples.*Received: 1 examples"):
        measure(mlp, data[0][:1])


def test_outputs_of_any_dtype(data):
    x = keras.Input((8,))
    large = keras.layers.Dense(4, dtype="mixed_float16")(x) * 2000.0
    is_positive = keras.layers.Dense(4)(x) > 0
    for outputs in (large, is_positive):
        rows = measure(keras.Model(x, outputs), data[0]).rows
        assert all(0 < row.change < 10 for row in rows)


def test_a_metric_gets_arrays(mlp, data):
    x, y = data
    kinds = []

    def metric(y, outputs):
        kinds.append((type(y), type(outputs)))
        return keras.ops.convert_to_tensor(float(np.abs(y - outputs).mean()))

    given = keras.ops.convert_to_tensor(y)
    tensors = measure(mlp, x, y=given, metric=metric, sparsities=(0.5,))
    assert set(kinds) == {(np.ndarray, np.ndarray)}
    np.testing.assert_allclose(tensors.dense, np.abs(y - values(mlp(x))).mean(), rtol=1e-5)


def test_a_module_of_pytorch_is_pruned_while_measured(rng):
    if keras.backend.backend() != "torch":
        pytest.skip("only PyTorch has such modules")
    import torch

    wrapper = keras.layers.TorchModuleWrapper(torch.nn.Linear(8, 8))
    model = keras.Sequential([keras.Input((8,)), wrapper, keras.layers.Dense(4)])
    x = rng.standard_normal((32, 8), "float32")
    model(x)
    before = model.get_weights()
    rows = measure(model, x).rows
    assert len(rows) == 4
    assert all(row.change > 0.01 for row in rows)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
