import keras
import pytest
from conftest import fit, make_mlp, zeros

import keras_trim
from keras_trim.patterns import MatrixView
from keras_trim.policies import candidates

RECURRENT = ["kernel", "recurrent_kernel"]
CELL = keras.layers.GRUCell(4)


def prunable(layer, input_shape):
    """Returns the names of the weights that the rule selects, and the reasons for the others."""
    layer.build(input_shape)
    found = candidates(layer)
    return (
        [c.variable.name for c in found if c.reason is None],
        {c.variable.name: c.reason for c in found if c.reason is not None},
    )


@pytest.mark.parametrize(
    ("layer", "input_shape", "expected"),
    [
        (keras.layers.Dense(4), (None, 3), ["kernel"]),
        (keras.layers.Conv1D(4, 3), (None, 8, 3), ["kernel"]),
        (keras.layers.Conv2D(4, 3), (None, 8, 8, 3), ["kernel"]),
        (keras.layers.Conv3D(4, 3), (None, 8, 8, 8, 3), ["kernel"]),
        (keras.layers.Conv2DTranspose(4, 3), (None, 8, 8, 3), ["kernel"]),
        (keras.layers.SeparableConv2D(4, 3), (None, 8, 8, 3), ["pointwise_kernel"]),
        (keras.layers.Embedding(10, 4), (None, 5), ["embeddings"]),
        (keras.layers.EinsumDense("abc,cd->abd", (None, 4)), (None, 5, 3), ["kernel"]),
        (keras.layers.LSTM(4), (None, 5, 3), RECURRENT),
        (keras.layers.GRU(4), (None, 5, 3), RECURRENT),
        (keras.layers.SimpleRNN(4), (None, 5, 3), RECURRENT),
        (keras.layers.Bidirectional(keras.layers.GRU(4)), (None, 5, 3), RECURRENT * 2),
        (keras.layers.TimeDistributed(keras.layers.Dense(4)), (None, 5, 3), ["kernel"]),
        (keras.layers.RNN([keras.layers.LSTMCell(4), CELL]), (None, 5, 3), RECURRENT * 2),
        (keras.layers.ConvLSTM2D(4, 3), (None, 5, 8, 8, 3), RECURRENT),
        (keras.layers.DepthwiseConv2D(3), (None, 8, 8, 3), []),
        (keras.layers.Conv2D(6, 3, groups=6), (None, 8, 8, 6), []),
        (keras.layers.BatchNormalization(), (None, 3), []),
        (keras.layers.LayerNormalization(), (None, 3), []),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.layers.Layer) else "",
)  # fmt: skip
def test_the_rule(layer, input_shape, expected):
    names, reasons = prunable(layer, input_shape)
    assert names == expected
    assert all(reasons.values())


def test_multi_head_attention():
    layer = keras.layers.MultiHeadAttention(2, 4)
    layer.build((None, 5, 8), (None, 5, 8))
    assert [c.variable.path.split("/")[-2] for c in candidates(layer) if c.reason is None] == [
        "query",
        "key",
        "value",
        "attention_output",
    ]


def test_reasons():
    _, reasons = prunable(keras.layers.SeparableConv2D(4, 3), (None, 8, 8, 3))
    assert reasons["depthwise_kernel"].startswith("depthwise kernel")
    assert reasons["bias"].startswith("rank 1")

    class Custom(keras.layers.Layer):
        def build(self, input_shape):
            self.table = self.add_weight(shape=(4, 4), name="table")
            self.own_kernel = self.add_weight(shape=(4, 4), name="own_kernel")

    names, reasons = prunable(Custom(), (None, 4))
    assert names == ["own_kernel"]
    assert "get_prunable_weights()" in reasons["table"]


def test_lora_factors_are_left_out():
    layer = keras.layers.Dense(8)
    layer.build((None, 8))
    layer.enable_lora(2)
    names = [c.variable.name for c in candidates(layer) if c.reason is None]
    assert names == ["kernel"]


def test_get_prunable_weights_replaces_the_rule(data):
    class Mixture(keras.layers.Layer, keras_trim.PrunableLayer):
        def build(self, input_shape):
            self.experts = self.add_weight(shape=(2, 8, 1), name="experts")
            self.own_kernel = self.add_weight(shape=(8, 1), name="own_kernel")

        def call(self, x):
            return x @ self.experts[0] + x @ self.experts[1] + x @ self.own_kernel

        def get_prunable_weights(self):
            return [self.experts]

    model = keras.Sequential([keras.Input((8,)), Mixture()])
    keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.25, 0))
    model.compile("adam", "mse")
    fit(model, data)
    report = keras_trim.sparsity_report(model)
    assert [(row.zeros, row.reason) for row in report.rows] == [
        (4, None),
        (0, "not returned by get_prunable_weights()"),
    ]


def test_get_prunable_weights_must_return_own_variables():
    class Wrong(keras.layers.Dense):
        def get_prunable_weights(self):
            return self.answer

    model = keras.Sequential([keras.Input((8,)), Wrong(2)])
    for Wrong.answer, shown in (([1.0], "1.0"), (None, "None")):
        with pytest.raises(ValueError, match=rf"`get_prunable_weights\(\)`.*Received: {shown}"):
            keras_trim.prune_low_magnitude(model)


class Only(keras_trim.PruningPolicy):
    def __init__(self, *names):
        self.names = names

    def allow_pruning(self, layer):
        return layer.name in self.names

    def ensure_model_supports_pruning(self, model):
        if len(model.layers) > 9:
            raise ValueError("too deep")


def test_a_policy_chooses_layers(data):
    model = make_mlp()
    schedule = keras_trim.ConstantSparsity(0.5, 0)
    keras_trim.prune_low_magnitude(model, schedule, pruning_policy=Only("hidden"))
    model.compile("adam", "mse")
    fit(model, data)
    assert zeros(model) == [64]
    reasons = {
        row.path.split("/", 1)[1]: row.reason for row in keras_trim.sparsity_report(model).rows
    }
    assert reasons["out/kernel"] == "Only does not allow it"


@pytest.mark.parametrize("kind", [keras.layers.LSTM, keras.layers.MultiHeadAttention])
def test_policies_see_layers_not_their_cells(kind):
    class OnlyKind(keras_trim.PruningPolicy):
        def allow_pruning(self, layer):
            return isinstance(layer, kind)

        def ensure_model_supports_pruning(self, model):
            pass

    inputs = keras.Input((4, 8))
    x = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True))(inputs)
    x = keras.layers.MultiHeadAttention(2, 4)(x, x)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    keras_trim.prune_low_magnitude(model, pruning_policy=OnlyKind())
    pruned = {row.path.split("/")[0] for row in keras_trim.sparsity_report(model).pruned_rows}
    assert len(pruned) == 1
    assert ("bidirectional" in pruned.pop()) == (kind is keras.layers.LSTM)


def test_a_policy_that_matches_nothing():
    with pytest.raises(ValueError, match="Nothing in it can be pruned.*Only does not allow it"):
        keras_trim.prune_low_magnitude(make_mlp(), pruning_policy=Only("typo"))


def test_a_policy_may_refuse_a_model():
    model = keras.Sequential([keras.Input((8,))] + [keras.layers.Dense(8)] * 10)
    with pytest.raises(ValueError, match="too deep"):
        keras_trim.prune_low_magnitude(model, pruning_policy=Only("dense"))


def view(layer, input_shape):
    layer.build(input_shape)
    return next(c.view for c in candidates(layer) if c.reason is None)


def test_which_axes_are_inputs():
    assert view(keras.layers.Dense(4), (None, 3)) == MatrixView((), (0,), (1,))
    assert view(keras.layers.Conv2D(4, 3), (None, 8, 8, 3)) == MatrixView((0, 1), (2,), (3,))
    transposed = keras.layers.Conv2DTranspose(4, 3)
    assert view(transposed, (None, 8, 8, 3)) == MatrixView((0, 1), (3,), (2,))
    query = keras.layers.EinsumDense("abc,cde->abde", (None, 2, 4))
    assert view(query, (None, 5, 8)) == MatrixView((), (0,), (1, 2))
    output = keras.layers.EinsumDense("abde,dec->abc", (None, 8))
    assert view(output, (None, 5, 2, 4)) == MatrixView((), (0, 1), (2,))
    batched = keras.layers.EinsumDense("bhi,hio->bho", (2, 4))
    assert view(batched, (None, 2, 3)) == MatrixView((0,), (1,), (2,))
    ellipsis = keras.layers.EinsumDense("...x,xy->...y", 4)
    assert view(ellipsis, (None, 2, 3)) == MatrixView((), (0,), (1,))
