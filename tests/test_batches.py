"""Everything `model.predict` accepts, read batch by batch."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_trim import batches, model_inputs

X = np.arange(14, dtype="float32").reshape(7, 2)
Y = np.ones(7)


class Batches(keras.utils.PyDataset):
    def __init__(self, has_targets, **kwargs):
        super().__init__(**kwargs)
        self.has_targets = has_targets

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(3 * index, 3 * index + 3)
        return (X[part], Y[part]) if self.has_targets else (X[part],)


def generator(has_targets):
    for part in (slice(0, 3), slice(3, 6), slice(6, 7)):
        yield (X[part], Y[part]) if has_targets else (X[part],)


def tf_dataset(has_targets):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y) if has_targets else X).batch(3)


def loader(has_targets):
    torch = pytest.importorskip("torch")
    parts = [torch.tensor(X), torch.tensor(Y)]
    data = torch.utils.data.TensorDataset(*parts[: 1 + has_targets])
    return torch.utils.data.DataLoader(data, batch_size=3)


def frame():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(X, columns=["a", "b"])


KINDS = {
    "array": lambda: X,
    "tensor": lambda: keras.ops.convert_to_tensor(X),
    "frame": frame,
    "generator": lambda: generator(False),
    "generator with targets": lambda: generator(True),
    "tf.data": lambda: tf_dataset(False),
    "tf.data with targets": lambda: tf_dataset(True),
    "PyDataset": lambda: Batches(False),
    "PyDataset with targets, threads": lambda: Batches(True, workers=2),
    "DataLoader": lambda: loader(False),
    "DataLoader with targets": lambda: loader(True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind):
    parts = list(batches.iterate(KINDS[kind](), batch_size=3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert all(isinstance(part, np.ndarray) for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts), X)
    first = list(batches.iterate(KINDS[kind](), batch_size=3, steps=2))
    np.testing.assert_array_equal(np.concatenate(first), X[:6])


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras, of any generator
@pytest.mark.parametrize("kind", KINDS)
def test_as_predict_reads_them(kind):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    structure, specs = model_inputs.signature(model)
    flat = [
        model_inputs.flatten(part, structure, specs)
        for part in batches.iterate(KINDS[kind](), batch_size=3)
    ]
    (read,) = (np.concatenate(parts) for parts in zip(*flat, strict=True))
    ours = model.predict(read, verbose=0)
    theirs = model.predict(KINDS[kind](), batch_size=3, verbose=0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_loader_of_bare_tensors_and_of_dicts():
    torch = pytest.importorskip("torch")
    rows = [torch.tensor(row) for row in X]
    (part,) = batches.iterate(torch.utils.data.DataLoader(rows, batch_size=7))
    np.testing.assert_array_equal(part, X)
    rows = [{"a": row} for row in rows]
    (part,) = batches.iterate(torch.utils.data.DataLoader(rows, batch_size=7))
    np.testing.assert_array_equal(part["a"], X)


def test_nested_arrays():
    data = {"a": X, "b": [Y, None]}
    parts = list(batches.iterate(data, batch_size=4))
    assert [len(part["a"]) for part in parts] == [4, 3]
    np.testing.assert_array_equal(parts[1]["b"][0], Y[4:])
    assert parts[1]["b"][1] is None


def test_32_examples_by_default():
    assert [len(part) for part in batches.iterate(np.zeros((40, 1)))] == [32, 8]


def test_data_without_an_end():
    def forever():
        while True:
            yield (X,)

    assert len(list(batches.iterate(forever(), steps=4))) == 4


def test_data_that_end_too_soon():
    with pytest.warns(UserWarning, match="end after 3 of 5 batches"):
        assert len(list(batches.iterate(X, batch_size=3, steps=5))) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X[:0], r"at least one example.*Received: ndarray of shape \(0, 2\)"),
        ([X, Y[:3]], "same number of examples.*Received: a list of 2"),
        ("words", "what `model.predict` takes.*Received: str"),
        (None, "what `model.predict` takes"),
        ((x for x in [X]), "must return a tuple.*Received: generator"),
        ((x for x in []), "at least one batch"),
    ],
)
def test_data_of_no_kind(data, message):
    with pytest.raises(ValueError, match=message):
        list(batches.iterate(data))


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"steps": -1}, {"steps": 2.0}])
def test_sizes_of_batches(arguments):
    with pytest.raises(ValueError, match="must be a positive integer. Received: "):
        list(batches.iterate(X, **arguments))


# --- calls


def batch_list():
    yield from ([X[:3]], [X[3:6]], [X[6:]])


FORMS = {
    "arrays": lambda: (x for x in (X[:3], X[3:6], X[6:])),
    "lists": batch_list,
    "dicts": lambda: ({"x": x} for (x,) in batch_list()),
    "a function": lambda: batch_list,
    "a list of dicts": lambda: [{"x": x} for (x,) in batch_list()],
    "tuples": lambda: generator(True),
    "an array": lambda: X,
}


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras, of any generator
def test_calls_of_tensorflows_tools(make):
    structure, specs = model_inputs.signature(
        keras.Sequential([keras.Input((2,), name="x"), layers.Dense(1)])
    )
    found = list(batches.iterate(batches.calls(make(), structure), batch_size=3))
    found = [model_inputs.flatten(batch, structure, specs)[0] for batch in found]
    assert [len(batch) for batch in found] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(found), X)


def test_a_list_of_dicts_that_the_model_takes_in_one_call():
    data = [{"a": X}, {"b": X}]
    assert batches.calls(data, [{"a": 0}, {"b": 1}]) is data
    assert batches.calls(data) is data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("`images` is empty", "`images` is empty"),
        ("Input 'a'", "`images` must be inputs of the model, without labels. Input 'a'"),
    ],
)
def test_errors_name_the_argument(text, message):
    with pytest.raises(ValueError, match=f"^{message}$"), batches.naming("images"):
        raise ValueError(text)


@pytest.mark.parametrize("data", [np.zeros((0, 2)), "images.npy"], ids=["empty", "no data"])
def test_data_have_the_name_that_the_user_knows(data):
    with pytest.raises(ValueError, match="^`images` must .*Received: "):
        list(batches.iterate(data, name="images"))


# --- flatten


def two_inputs(structure):
    a, b = keras.Input((2,), name="a"), keras.Input((None, 1), name="b", dtype="int32")
    joined = layers.Concatenate()([a, layers.GlobalMaxPooling1D()(keras.ops.cast(b, "float32"))])
    return model_inputs.signature(keras.Model(structure(a, b), joined))


A, B = np.ones((3, 2)), np.full((3, 5), 7.0)


@pytest.mark.parametrize(
    ("structure", "x"),
    [
        (lambda a, b: [a, b], [A, B]),
        (lambda a, b: [a, b], (A, B)),
        (lambda a, b: [a, b], {"b": B, "a": A, "unused": None}),
        (lambda a, b: {"a": a, "b": b}, {"b": B, "a": A}),
        (lambda a, b: {"x": [a, {"y": b}]}, {"x": [A, {"y": B}]}),
    ],
)
def test_structures(structure, x):
    flat = model_inputs.flatten(x, *two_inputs(structure))
    assert [(part.shape, part.dtype.name) for part in flat] == [
        ((3, 2), "float32"),
        ((3, 5, 1), "int32"),
    ]
    np.testing.assert_array_equal(flat[1][..., 0], B)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([A], "a list of 2 inputs: a, b. Received: a list of 1"),
        ({"a": A}, "the inputs 'a', 'b'. Received: a dict with the keys 'a'"),
        ([A, None], "Input 'b' is not optional"),
        ([A[:, :1], B], r"Input 'a' must be of shape \(any, 2\). Received: shape=\(3, 1\)"),
        ([A[0], B], r"that of the batch: pass `x\[None\]`.*Received: shape=\(2,\)"),
        ([A, B[:2]], "same batch size"),
        ([A.astype(str), B], "'a' must be an array of numbers. Received: ndarray of dtype <U"),
        ([[[1], [1, 2]], B], "Received: a list of lists of different lengths; .*pad_sequences"),
        ([[[1], 2], B], "of which NumPy makes no array"),
        ([[A, A[0]], B], r"Received: a list of arrays of shapes \(3, 2\), \(2,\)$"),
    ],
)
def test_what_is_not_the_models(x, message):
    with pytest.raises(ValueError, match=message):
        model_inputs.flatten(x, *two_inputs(lambda a, b: [a, b]))


def test_optional_inputs():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b", optional=True)
    specs = model_inputs.signature(keras.Model([a, b], [a, b]))
    assert model_inputs.flatten([X, None], *specs)[1] is None
    assert model_inputs.flatten({"a": X}, *specs)[1] is None
    with pytest.raises(ValueError, match="Input 'a' is not optional"):
        model_inputs.flatten([None, X], *specs)


def test_one_input_by_name():
    specs = model_inputs.signature(keras.Model(x := keras.Input((2,), name="a"), x))
    for given in (X, [X], {"a": X}, X.tolist()):
        np.testing.assert_array_equal(model_inputs.flatten(given, *specs)[0], X)
    with pytest.raises(ValueError, match="with the key 'a'. Received: a dict with the keys 'c'"):
        model_inputs.flatten({"c": X}, *specs)


def test_arrays_need_no_keras(one_backend):
    code = (
        "import sys; sys.modules['keras'] = None\n"
        "import numpy as np\n"
        "from keras_trim import batches\n"
        "assert len(list(batches.iterate([np.ones(40)]))) == 2\n"
        "try: list(batches.iterate('words'))\n"
        "except ImportError as error: assert 'Pass arrays' in str(error)\n"
        "else: raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
