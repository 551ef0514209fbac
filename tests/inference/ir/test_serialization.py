"""Files of engines that lie, with checksums that are right: one exception, and never a crash."""

import contextlib
import json
import warnings

import keras
import numpy as np
import pytest
from helpers import examples, numbers, randomize
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

from keras_trim.inference import Engine
from keras_trim.inference.ir.graph import Graph
from keras_trim.inference.kernels.instructions import PAD
from keras_trim.inference.lowering.lower import lower_graph
from keras_trim.inference.lowering.tuner import Tuner
from keras_trim.storage import FormatError, load_arrays
from keras_trim.storage.writer import Writer

HUGE = 1 << 40


def image_model():
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    y = layers.Add()([layers.DepthwiseConv2D(3, padding="same")(y), y])
    y = layers.MaxPooling2D(2)(y)
    y = layers.Concatenate()([y, layers.Permute((2, 1, 3))(y)])
    y = layers.Concatenate()([layers.ZeroPadding2D(1)(y), layers.UpSampling2D(2)(y[:, :3, :3])])
    return keras.Model(x, layers.Dense(5, activation="softmax")(layers.Flatten()(y)))


def sequence_model():
    x = keras.Input((6,), dtype="int32")
    y = layers.Embedding(20, 8, mask_zero=True)(x)
    y = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(y)
    y = layers.GRU(7, reset_after=False, return_sequences=True)(y)
    y = layers.TimeDistributed(layers.Dense(4))(y)
    y = layers.TimeDistributed(layers.Conv1D(3, 2))(layers.Reshape((6, 2, 2))(y))
    return keras.Model(x, {"y": layers.Reshape((6, 3))(y)})


def attention_model():
    x = keras.Input((7, 12))
    y = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 6)(x, x, use_causal_mask=True))
    y = layers.Attention()([y, y])
    return keras.Model(x, ops.mean(y, axis=1))


class File:
    """What a file of an engine holds, to be changed and written with checksums that are right."""

    def __init__(self, path):
        self.arrays = load_arrays(path)
        self.head = json.loads(self.arrays.pop("graph").tobytes())

    def number(self, kind):
        return [node[0] for node in self.head["nodes"]].index(kind)

    def fields(self, kind):
        return self.head["nodes"][self.number(kind)][1]

    def write(self, path):
        with open(path, "wb") as file:
            writer = Writer(file)
            text = json.dumps(self.head).encode()
            writer.write_array("graph", np.frombuffer(text, np.uint8))
            for name, array in self.arrays.items():
                writer.write_array(name, array)
            writer.finish({})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files of the models above."""
    folder = tmp_path_factory.mktemp("engines")
    for make in (image_model, sequence_model, attention_model):
        with warnings.catch_warnings():  # Keras drops a mask, and says so
            warnings.simplefilter("ignore")
            model = randomize(make())
        Engine(model, 1).save(folder / f"{make.__name__}.engine")
    return folder


@pytest.fixture
def forge(folder, tmp_path):
    """Function (name of a model, function that changes its `File`) -> path."""

    def apply(name, change):
        file = File(folder / f"{name}_model.engine")
        change(file)
        file.write(tmp_path / "forged.engine")
        return tmp_path / "forged.engine"

    return apply


def run(path):
    """Loads an engine and calls it with what it says it takes."""
    engine = Engine.load(path, 1)
    inputs = []
    for spec in engine._graph.input_specs:
        shape = [2 if n is None else n for n in spec["shape"]]
        if np.prod(np.array(shape, float)) > 1e6:
            engine.summary()  # makes inputs of its own
            return
        inputs.append((3 * numbers(*shape)).astype(spec["dtype"].replace("bfloat16", "float32")))
    engine(inputs if len(inputs) > 1 else inputs[0])
    str(engine.summary(inputs if len(inputs) > 1 else inputs[0]))


def field(operation, **values):
    return lambda file: file.fields(operation).update(values)


def array(kind, name, change):
    def apply(file):
        key = f"{file.number(kind)}/{name}"
        file.arrays[key] = np.ascontiguousarray(change(file.arrays[key]))

    return apply


def head(**values):
    return lambda file: file.head.update(values)


def node(kind, place, value):
    """Changes one of the five parts of a node: kind, fields, inputs, outputs, name."""

    def apply(file):
        file.head["nodes"][file.number(kind)][place] = value

    return apply


def inserted(kind, fields, inputs):
    """A new last node, whose value is the first output."""

    def apply(file):
        value = file.head["num_values"]
        file.head["nodes"].append([kind, fields, inputs, [value], "new"])
        file.head["outputs"][0] = value
        file.head["num_values"] += 1

    return apply


def pair(*values):
    return {"tuple": list(values)}


IN_LOAD = [
    ("image", field("Convolution", strides=pair(0, 1)), "Convolution: expected 2 integers"),
    ("image", field("Convolution", strides=pair(1, HUGE)), "expected 2 integers"),
    ("image", field("Convolution", strides=pair(1, True)), "expected 2 integers"),
    ("image", field("Convolution", dilation=[1, 1]), "a field has a list"),
    ("image", field("Convolution", padding=pair("same", "up")), "expected 2 integers"),
    ("image", field("Convolution", groups=-1), "at least 1"),
    ("image", field("Convolution", groups=3), "multiple of groups"),
    ("image", field("Convolution", low="0"), "expected a number"),
    ("image", field("Convolution", low=10**30), "expected a number"),
    ("image", field("Convolution", low={"float": "1e3"}), "a number of another form"),
    ("image", field("Convolution", residual=1), "residual must be a boolean"),
    ("image", field("Convolution", other=1), "has other fields"),
    ("image", array("Convolution", "kernel", lambda a: a[0]), "weights must be float32"),
    ("image", array("Convolution", "kernel", lambda a: a[:0]), "at least 1"),
    ("image", array("Convolution", "bias", lambda a: a[1:]), "weights must be float32"),
    ("image", array("Convolution", "bias", lambda a: a.astype("float64")), "must be float32"),
    ("image", lambda file: file.arrays.clear(), "has other fields"),
    ("image", lambda file: file.arrays.update(a=np.ones(2)), "arrays that no operation takes"),
    ("image", field("Pool", window=pair(1 << 20, 1 << 20)), "a window that is too large"),
    ("image", field("Permute", axes=pair(0, 1, 1, 3)), "not an order of axes"),
    ("image", field("Slice", steps=pair(None, 0, None, None)), "a step of zero"),
    ("image", field("Concatenate", axis=-1), "at least 0"),
    ("image", node("Softmax", 0, "KerasCall"), "no operation 'KerasCall'"),
    ("image", node("Softmax", 0, "system"), "no operation 'system'"),
    ("image", node("Softmax", 2, []), "takes another number of values"),
    ("image", node("Softmax", 2, [-1]), "values without numbers"),
    ("image", node("Softmax", 2, [12345]), "not there yet"),
    ("image", node("Softmax", 3, [0]), "there already"),
    ("image", lambda file: file.head["nodes"].reverse(), "not there yet"),
    ("image", lambda file: file.head["nodes"].pop(), "never made"),
    ("image", head(nodes=[[]] * 20_000), "too many operations"),
    ("image", head(version=2), "its version is 2"),
    ("image", head(num_values=0), "another number of values"),
    ("image", head(inputs=[]), "a structure lacks an input"),
    ("image", head(input_structure=0.0), "broken"),
    ("image", head(output_structure=[[0], 0]), "a structure lacks"),
    ("image", head(output_dtypes=["object"]), "unknown dtypes"),
    ("image", lambda file: file.head["input_specs"][0].update(shape=[-1]), "impossible"),
    ("image", lambda file: file.head["input_specs"][0].update(dtype="O"), "impossible"),
    ("image", lambda file: file.head["input_specs"][0].update(table_length=-1), "impossible"),
    ("image", lambda file: file.head.pop("outputs"), "other fields"),
    ("sequence", field("Recurrent", kind="transformer"), "no layer"),
    ("sequence", field("Recurrent", activation=pair("tanh", 0)), "a name and two numbers"),
    ("sequence", field("Recurrent", activation=pair("eval", 0, 0)), "no function 'eval'"),
    ("sequence", array("Recurrent", "recurrent_kernel", lambda a: a[:2]), "must be float32"),
    ("sequence", array("Recurrent", "recurrent_bias", lambda a: a[:2]), "must be float32"),
    ("sequence", array("Embedding", "table", lambda a: a[0]), "must be float32"),
    ("attention", field("LayerNormalization", epsilon=-1.0), "must not be negative"),
    ("attention", field("Attention", scale="1"), "scale is of another type"),
    ("attention", field("Einsum", x_labels="aab"), "a label twice"),
    ("attention", field("Einsum", out_labels="ax"), "a sum over an axis of one tensor"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), IN_LOAD)
def test_lies_that_loading_finds(forge, name, change, message):
    with pytest.raises(FormatError, match=message) as error:
        Engine.load(forge(name, change))
    assert str(error.value).startswith("This is no valid engine: ")
    assert str(error.value).isprintable()


TOO_LARGE = "of memory|impossible shape"
REPEATED = {"times": pair(1 << 20, 1 << 20)}
IN_CALL = [
    ("image", field("Convolution", groups=2), "a convolution's channels"),
    ("image", field("Convolution", strides=pair(2, 2)), "cannot take inputs of shapes"),
    ("image", field("Permute", axes=pair(0, 1, 2)), "a permutation of other axes"),
    ("image", field("Pad", amounts=pair(pair(1 << 23, 0), pair(0, 1 << 23))), TOO_LARGE),
    ("image", field("Convolution", padding=pair(pair(1 << 23, 0), pair(1 << 23, 0))), TOO_LARGE),
    ("image", field("Convolution", padding=pair(pair(1 << 18, 0), pair(1 << 17, 0))), TOO_LARGE),
    ("image", inserted("Repeat", REPEATED, [0]), TOO_LARGE),
    ("image", inserted("Reshape", {"shape": pair(*[1 << 23] * 8)}, [0]), "cannot become"),
    ("image", inserted("SplitTime", {}, [0, 0]), "do not divide the samples"),
    ("image", inserted("Reduce", {"function": "max", "axes": pair(9), "keepdims": True}, [0]),
     "a reduction of other axes"),
    ("image", inserted("Reduce", {"function": "max", "axes": pair(0, 1, 2, 3), "keepdims": False},
     [0]), "an impossible shape"),
    ("sequence", inserted("Softmax", {"is_log": False}, [0]), "is given integers"),
    ("sequence", inserted("Concatenate", {"axis": 0}, []), "nothing to join"),
    ("sequence", field("Recurrent", has_mask=False), "states or mask"),
    ("sequence", field("Recurrent", has_initial_state=True), "states or mask"),
    ("sequence", field("Recurrent", return_state=True), "another number of values"),
    ("sequence", lambda file: file.head["input_specs"][0].update(shape=[None, 1 << 22]),
     "instructions"),
    ("attention", inserted("Attention", {"scale": None}, [0, 0, 0]), "attention's axes"),
    ("attention", field("Einsum", x_labels="axkz", out_labels="axyz"),
     "a product of other axes"),
    ("attention", inserted("JoinTime", {}, [0]), None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), IN_CALL)
def test_lies_that_a_call_finds(forge, name, change, message):
    path = forge(name, change)
    Engine.load(path)
    if message is None:  # another engine, but one
        run(path)
        return
    with pytest.raises(FormatError, match=message):
        run(path)


def test_a_signal_in_time_has_one_row(forge):
    """Its convolution would write rows that nobody made room for."""

    def change(file):
        kernels = [n for n, node in enumerate(file.head["nodes"]) if node[0] == "Convolution"]
        name = f"{kernels[0]}/kernel"
        file.arrays[name] = np.concatenate([file.arrays[name]] * 2)

    with pytest.raises(FormatError, match="a window of several rows"):
        run(forge("sequence", change))


def test_names_are_shown_as_text(forge):
    path = forge("image", node("Softmax", 4, "[/red]\x1b[2J\ud800"))
    assert "[/red]?[2J?" in str(Engine.load(path, 1).summary())


def test_a_limit_on_memory(folder):
    path = folder / "image_model.engine"
    x = numbers(64, 8, 8, 3)
    Engine.load(path, 1, max_bytes=1 << 24)(x)
    with pytest.raises(FormatError, match="more than the 100,000 that are allowed"):
        Engine.load(path, 1, max_bytes=100_000)(x)


def test_wide_padding_is_read_within_memory():
    """Rows are copied by vectors up to the end of their padding: there is room behind the last."""
    x = keras.Input((4, 4, 1))
    y = layers.Conv2D(1, 3)(layers.ZeroPadding2D(((0, 0), (0, 4000)))(x))
    engine = Engine(keras.Model(x, y), 1)
    program = lower_graph(engine._graph, [(1, 4, 4, 1)], 1, Tuner())
    (pad,) = program.table[program.table[:, 0] == PAD.code]
    last_row = pad[PAD.at.x] + (pad[PAD.at.height] - 1) * pad[PAD.at.width]
    assert last_row + pad[PAD.at.row] <= program.arena_size
    assert engine(np.ones((1, 4, 4, 1))).shape == (1, 2, 4002, 1)


def test_sizes_beyond_64_bits_are_refused():
    graph = Graph(inputs=[0], outputs=[0], input_specs=[{"dtype": "float32"}])
    with pytest.raises(ValueError, match="an impossible shape"):
        lower_graph(graph, [(1 << 32, 1 << 32)], 1, Tuner(), np.zeros)


ODD = [None, True, -1, 0, 2, 3, 7, 100, 1 << 24, 1 << 63, 1.5, 1e300, "", "same", [], {}, pair(),
       pair(1, 1), {"float": "nan"}]  # fmt: skip


def places(value):
    """(container, key) of each place within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in list(items):
        yield value, key
        if isinstance(part, dict | list):
            yield from places(part)


@examples
@given(st.randoms(use_true_random=False))
def test_mutated_graphs_are_refused_or_run(folder, tmp_path_factory, random):
    path = tmp_path_factory.getbasetemp() / "mutated.engine"
    for _ in range(10):
        file = File(random.choice(sorted(folder.iterdir())))
        for _ in range(random.choice([1, 1, 2, 4])):
            container, key = random.choice(list(places(file.head["nodes"])))
            if type(container[key]) is int and random.random() < 0.7:
                container[key] += random.choice([-1, 1])
            else:
                container[key] = random.choice(ODD)
        file.write(path)
        with contextlib.suppress(FormatError):
            run(path)
