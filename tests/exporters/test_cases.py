"""Test cases for a file: inputs of many sizes, and the outputs of the user's model for them."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_trim.exporters import ExportedFile, cases, verification
from keras_trim.exporters.accuracy import FileAccuracy, representative_cases
from keras_trim.exporters.cases import Case, make_cases
from keras_trim.exporters.preparation import prepare


def shapes(made):
    return [tuple(array.shape for array in case.inputs) for case in made]


def cases_of(model, data=None):
    made = make_cases(prepare(model), data)
    for case in made:
        outputs = cases.call(model, case.inputs)
        for value, target in zip(outputs, case.outputs, strict=True):
            np.testing.assert_allclose(value, target, rtol=1e-4, atol=1e-5)
    return made


def test_three_batches():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert shapes(cases_of(model)) == [((1, 4),), ((3, 4),), ((7, 4),)]


def test_three_sizes_and_others():
    x = keras.Input((None, None, 2))
    model = keras.Model(x, layers.GlobalMaxPooling2D()(x))
    expected = [(1, 1, 1, 2), (3, 13, 13, 2), (7, 40, 40, 2), (3, 13, 40, 2)]
    assert shapes(cases_of(model)) == [(shape,) for shape in expected]


def test_sizes_that_keras_refuses():
    x = keras.Input((None, 2))
    model = keras.Model(x, layers.Conv1D(2, 7)(x))
    assert [case.inputs[0].shape[1] for case in cases_of(model)] == [8, 13, 40]


def test_sizes_that_must_be_equal():
    a, b = keras.Input((None, 2)), keras.Input((None, 2))
    model = keras.Model([a, b], layers.Add()([a, b]))
    assert shapes(cases_of(model)) == [
        ((1, 1, 2), (1, 1, 2)),
        ((3, 13, 2), (3, 13, 2)),
        ((7, 40, 2), (7, 40, 2)),
    ]


def test_a_known_batch():
    x = keras.Input(batch_shape=(4, 2))
    assert shapes(cases_of(keras.Model(x, layers.Dense(1)(x)))) == [((4, 2),)]


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_indices_are_in_the_table(dtype):
    words = keras.Input((5,), dtype=dtype)
    inner = keras.Sequential([keras.Input((5,), dtype=dtype), layers.Embedding(3, 2)])
    for case in cases_of(keras.Model(words, inner(words))):
        assert case.inputs[0].dtype == dtype
        assert set(case.inputs[0].reshape(-1)) <= {0, 1, 2}


def test_inputs_that_are_padded():
    words = keras.Input((6,), dtype="int32")
    frames = keras.Input((None, 2))
    states = [
        layers.LSTM(3)(layers.Embedding(9, 4, mask_zero=True)(words)),
        layers.GRU(2)(layers.Masking(-1.0)(frames)),
    ]
    made = cases_of(keras.Model([words, frames], states))
    padded = {case.name: case.inputs for case in made if "padded" in case.name}
    behind, before = (
        padded["inputs that are padded behind"],
        padded["inputs that are padded before"],
    )
    np.testing.assert_array_equal(behind[0] == 0, [[0] * 3 + [1] * 3, [0] * 4 + [1] * 2, [0] * 6])
    np.testing.assert_array_equal(before[0] == 0, (behind[0] == 0)[:, ::-1])
    is_masked = (behind[1] == -1).all(axis=-1)
    np.testing.assert_array_equal(is_masked.sum(axis=1), [6, 4, 0])
    for case in made:
        if "padded" not in case.name:
            assert (case.inputs[0] > 0).all()


def test_data_of_the_user():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b", dtype="int32")
    total = layers.Add()([a, keras.ops.cast(b[:, :2], "float32")])
    model = keras.Model({"a": a, "b": b}, total)
    data = {"b": np.full((300, 3), 5.0), "a": np.ones((300, 2))}
    made = [case for case in cases_of(model, data) if "of the data" in case.name]
    assert [len(case.inputs[0]) for case in made] == [32] * 8
    assert made[0].inputs[1].dtype == "int32"
    np.testing.assert_array_equal(made[0].outputs[0], 6)


def test_data_for_a_known_batch():
    x = keras.Input(batch_shape=(4, 2))
    made = cases_of(keras.Model(x, layers.Dense(1)(x)), np.ones((10, 2)))
    assert shapes(made) == [((4, 2),)] * 3  # two of the data


@pytest.mark.parametrize("name", ["verification_data", "representative_data"])
def test_data_of_which_no_batch_has_the_known_size(name):
    prepared = prepare(keras.Sequential([keras.Input((3,), batch_size=4), layers.Dense(2)]))
    read = make_cases if name == "verification_data" else representative_cases
    message = f"`{name}` must hold a batch of 4 examples.*Received: batches of 3"
    with pytest.raises(ValueError, match=message):
        read(prepared, np.ones((3, 3), "float32"))


def test_a_model_that_is_random():
    class MonteCarlo(layers.Layer):
        def __init__(self):
            super().__init__()
            self.seed = keras.random.SeedGenerator(0)

        def call(self, x):
            return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)

    x = keras.Input((200,))
    model = keras.Model(x, MonteCarlo()(x))
    message = "something different each time.*Received: model=functional"
    with pytest.raises(ValueError, match=message):
        make_cases(prepare(model))


def test_a_model_that_takes_special_inputs():
    class OnlyOnes(layers.Layer):
        def call(self, x):
            if not (keras.ops.convert_to_numpy(x) == 1).all():
                raise ValueError("only ones")
            return x

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    x = keras.Input((2,))
    prepared = prepare(keras.Model(x, OnlyOnes()(x)))
    with pytest.raises(ValueError, match=r"random inputs .*only ones.*`verification_data`"):
        make_cases(prepared)
    assert shapes(make_cases(prepared, np.ones((40, 2)))) == [((32, 2),), ((8, 2),)]


def test_optional_inputs_that_are_not_given():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b", optional=True)
    model = keras.Model([a, b], [layers.Dense(1)(a), layers.Dense(1)(b)])
    with pytest.raises(ValueError, match="Pass arrays for them. Received: None for 'b'"):
        make_cases(prepare(model), [np.ones((1, 2)), None])


def test_outputs_that_are_finite_for_some_inputs_only():
    x = keras.Input((4,))
    model = keras.Model(x, [keras.ops.sum(keras.ops.sqrt(x), axis=1), layers.Dense(2)(x)])
    made = make_cases(prepare(model))
    assert [case.name for case in made if np.isfinite(case.outputs[0]).any()] == [
        f"batches of {size} in [0, 1]" for size in (1, 3, 7)
    ]


def test_outputs_that_are_never_finite():
    x = keras.Input((4,))
    model = keras.Model(x, [layers.Dense(2, name="good")(x), layers.Dense(2, name="bad")(x)])
    message = "NaN or infinite on random inputs: pass `verification_data`.*outputs='bad'"
    model.get_layer("bad").bias.assign([np.nan, np.nan])
    with pytest.raises(ValueError, match=message):
        make_cases(prepare(model))
    message = "on random inputs and on the data: `verification_data` needs inputs"
    with pytest.raises(ValueError, match=message):
        make_cases(prepare(model), np.ones((3, 4)))


def test_data_for_which_outputs_are_finite():
    x = keras.Input((4,))
    model = keras.Model(x, keras.ops.log(x - 5.0))
    with pytest.raises(ValueError, match="pass `verification_data`"):
        make_cases(prepare(model))
    make_cases(prepare(model), np.full((3, 4), 7.0))


# --- comparing


def case(outputs, rows=2):
    return Case("a case", [np.ones((rows, 3), "float32")], [np.asarray(outputs, "float32")])


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ([[2.0], [4.1]], "for a case they differ by 0.025 of the largest"),
        ([[2.0], [np.nan]], "they differ in shapes, or in what is finite"),
        ([2.0, 4.0], "they differ in shapes"),
    ],
)
def test_files_that_differ(outputs, text):
    made = [case([[2.0], [4.0]])]
    with pytest.raises(verification.FileDiffersError, match=text) as caught:
        verification.verify(lambda _: [np.asarray(outputs)], made, "LiteRT")
    assert caught.value.case is made[0]
    assert verification.verify(lambda _: [np.asarray([[2.0], [4.0004]])], made, "LiteRT") < 2e-4


def test_a_file_that_cannot_be_run():
    def run(_):
        raise RuntimeError("no such operation\nat line 3")

    message = "LiteRT cannot run the file for a case: no such operation$"
    with pytest.raises(ValueError, match=message):
        verification.verify(run, [case([[1.0], [2.0]])], "LiteRT")


def test_one_example_at_a_time():
    rows = verification.one_example([case([[1.0], [2.0]])])
    assert [each.inputs[0].shape for each in rows] == [(1, 3), (1, 3)]
    assert [each.outputs[0].tolist() for each in rows] == [[[1.0]], [[2.0]]]


def test_one_example_of_a_total_over_the_batch():
    made = [
        Case("one", [np.ones((1, 3))], [np.float32(1)]),
        Case("more", [np.ones((3, 3))], [np.float32(3)]),
    ]
    assert [each.name for each in verification.one_example(made)] == ["one"]


def test_accuracy_of_a_total_over_the_batch():
    x = keras.Input((4,))
    model = keras.Model(x, keras.ops.mean(x * 2.0))
    data = np.arange(12.0).reshape(3, 4)
    made = representative_cases(prepare(model), data)
    accuracy = FileAccuracy.of(lambda inputs: [2 * inputs[0].mean()], made)
    assert (accuracy.num_examples, accuracy.relative_error) == (3, 0)
    assert accuracy.agreement is None


def test_representative_data_as_tensorflow_takes_them():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    prepared = prepare(keras.Model({"a": a, "b": b}, layers.Concatenate()([a, b])))
    calls = [{"a": np.full((1, 2), i), "b": np.ones((1, 3))} for i in range(4)]
    for data in (calls, lambda: iter(calls)):
        made = representative_cases(prepared, data)
        assert [case.inputs[0][0, 0] for case in made] == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_representative_data_that_is_not_finite(value):
    prepared = prepare(keras.Sequential([keras.Input((1,)), layers.Lambda(lambda x: 1 / x)]))
    message = "`representative_data`.*must be finite.*Received: NaN or infinity in batch 1 of"
    for bad in (value, 0.0):  # the data, or what the model returns for it
        data = np.array([[1.0]] * 33 + [[bad]])
        with pytest.raises(ValueError, match=message):
            representative_cases(prepared, data)


@pytest.mark.parametrize("name", ["verification_data", "representative_data"])
def test_labels_among_the_data(name):
    prepared = prepare(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))
    read = {"verification_data": make_cases, "representative_data": representative_cases}[name]
    message = rf"^`{name}` must be inputs.*without labels.*shapes \(3, 4\), \(3,\)$"
    with pytest.raises(ValueError, match=message):
        read(prepared, (np.ones((3, 4)), np.ones(3)))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            (None, 1234, True, None, 2e-7),
            "float32, zeros stored sparsely; outputs differ by 2.0e-07",
        ),
        (("int8", 1234, False), "int8, zeros stored like other values"),
        ((None, 1234, True, 1), "float32, zeros stored sparsely, for batches of 1"),
    ],
)
def test_an_exported_file_prints_as_a_summary(fields, text):
    assert str(ExportedFile("m", "litert", *fields)).startswith(f"m: 1,234 bytes, {text}")


def test_accuracy():
    made = [Case("", [np.eye(3)], [np.asarray([[3.0, 0.0], [0.0, 4.0], [0.0, 1.0]])])]
    off = np.asarray([[3.0, 0.0], [0.0, 4.0], [1.0, 0.0]])
    accuracy = FileAccuracy.of(lambda inputs: [inputs[0] @ off], made)
    assert accuracy.num_examples == 3
    assert accuracy.relative_error == pytest.approx(np.sqrt(2 / 26))
    assert accuracy.agreement == pytest.approx(2 / 3)
    assert str(accuracy) == "27.74% off on 3 examples, the same largest output for 66.67%"
