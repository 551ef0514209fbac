"""Errors for careless calls name the argument, the value received, and what to write."""

import keras
import numpy as np
import pytest
from conftest import fit, make_mlp

import keras_trim
from keras_trim.arguments import described

X = np.zeros((256, 20), "float32")


class Scheduled(keras_trim.PruningPolicy):
    def allow_pruning(self, layer):
        return True

    def ensure_model_supports_pruning(self, model):
        pass


TAKE_A_MODEL = [
    lambda model: keras_trim.prune(model, 0.5),
    keras_trim.prune_low_magnitude,
    keras_trim.strip_pruning,
    keras_trim.sparsity_report,
    keras_trim.check,
    keras_trim.size_table,
    keras_trim.bench,
    keras_trim.Pruner,
    lambda model: keras_trim.sensitivity(model, X),
    lambda model: keras_trim.save(model, "a.ktrim"),
    lambda model: keras_trim.export(model, "a.safetensors"),
    lambda model: keras_trim.inference.Engine(model),
]
NO_MODELS = {
    "a file": ("model.keras", r"model = keras.models.load_model\('model.keras'\)"),
    "a sparse file": ("model.ktrim", r"model = keras_trim.load\('model.ktrim'\)"),
    "an array": (X, r"an array of shape \(256, 20\), float32"),
    "nothing": (None, "=None"),
    "a class": (keras.Sequential, r"make one of the class, `Sequential\(...\)`"),
    "what fit returned": (keras.callbacks.History(), "pass the model that it trained"),
    "a report": (keras_trim.SparsityReport([]), "that the SparsityReport was made of"),
}


@pytest.mark.parametrize("take", TAKE_A_MODEL)
@pytest.mark.parametrize("name", NO_MODELS)
def test_something_in_place_of_a_model(take, name):
    value, cure = NO_MODELS[name]
    with pytest.raises(ValueError, match="(?s)`(model|to_prune)` must be .*Received: ") as error:
        take(value)
    assert error.match(cure)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda: keras_trim.prune_low_magnitude(make_mlp(), schedule=0.8),
            r"no argument `schedule` \(did you mean `pruning_schedule`\?\).*schedule=0.8",
        ),
        (
            lambda: keras_trim.prune_low_magnitude(make_mlp(), input_shape=(8,)),
            r"no argument `input_shape`.*It takes `to_prune`",
        ),
        (lambda: keras_trim.inference.Engine(make_mlp(), threads=2), "`num_threads`"),
        (lambda: keras_trim.ConstantSparsity(), "missing a required argument: 'target_sparsity'"),
        (lambda: keras_trim.prune(make_mlp(), target_sparsity=0.5), "`sparsity`"),
        (lambda: keras_trim.export(make_mlp()), "missing a required argument: 'path'"),
    ],
)
def test_wrong_names_of_arguments(call, told):
    with pytest.raises(TypeError, match=told):
        call()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: keras_trim.PolynomialDecay(0, 0.8), r"`end_step` is missing.*for_epochs\(0.8"),
        (lambda: keras_trim.PolynomialDecay(0, 80, 0, 9), "so 0.8 for 80 %. .*final_sparsity=80"),
        (lambda: keras_trim.prune(make_mlp(), 65), "so 0.65 for 65 %"),
        (
            lambda: keras_trim.prune_low_magnitude(make_mlp(), 0.7),
            r"`ConstantSparsity\(0.7, begin_step=0\)`. Received: pruning_schedule=0.7",
        ),
        (
            lambda: keras_trim.prune_low_magnitude(make_mlp(), keras_trim.PolynomialDecay),
            "for_epochs.*Received: pruning_schedule=the class PolynomialDecay",
        ),
        (
            lambda: keras_trim.prune(make_mlp(), 0.5, pruning_policy=Scheduled),
            r"such as `Scheduled\(\)`. Received: pruning_policy=the class Scheduled",
        ),
        (
            lambda: keras_trim.budget(keras_trim.SparsityReport([]), zeros=0.5),
            r"`keras_trim.sensitivity\(model, x\)`",
        ),
        (lambda: keras_trim.save(make_mlp(), "a.keras"), r"`model.save\(path\)`.*path=a.keras"),
        (lambda: keras_trim.save("a.ktrim", make_mlp()), "the model comes first"),
        (lambda: keras_trim.export(make_mlp(), "a.ktrim"), r"`keras_trim.save\(model, path\)`"),
        (lambda: keras_trim.bench(make_mlp(), runtimes="onnx"), "'litert', 'onnxruntime'"),
        (
            lambda: keras_trim.PolynomialDecay.for_epochs(0.8, 4, (x for x in X)),
            "pass how many there are in an epoch",
        ),
        (
            lambda: keras_trim.sparsity_report(keras.Sequential([keras.layers.Dense(1)])),
            r"no weights yet.*`model.build\(input_shape\)`",
        ),
    ],
)
def test_wrong_values(call, told):
    with pytest.raises(ValueError, match=f"(?s){told}") as error:
        call()
    assert "Received: " in str(error.value)


def test_files_of_another_kind(tmp_path):
    make_mlp().save(tmp_path / "model.keras")
    make_mlp().save_weights(tmp_path / "model.weights.h5")
    for name in ("model.keras", "model.weights.h5"):
        with pytest.raises(keras_trim.FormatError, match="`keras.models.load_model`.*Received"):
            keras_trim.load(tmp_path / name)
    keras_trim.save(make_mlp(), tmp_path / "model.ktrim")
    with pytest.raises(keras_trim.FormatError, match="`keras_trim.load`"):
        keras_trim.inference.Engine.load(tmp_path / "model.ktrim")
    keras_trim.inference.Engine(make_mlp()).save(tmp_path / "model.engine")
    with pytest.raises(keras_trim.FormatError, match=r"`keras_trim.inference.Engine.load`"):
        keras_trim.load(tmp_path / "model.engine")


def test_names_that_are_not_there():
    with pytest.raises(AttributeError, match=r"the engine is `keras_trim.inference.Engine`"):
        keras_trim.engine  # noqa: B018
    with pytest.raises(AttributeError, match=r"did you mean `keras_trim.PolynomialDecay`\?"):
        keras_trim.PolynomialDecy  # noqa: B018
    assert set(keras_trim.__all__) | {"inference", "plots"} <= set(dir(keras_trim))


def test_what_is_received_is_told_in_a_few_words():
    assert described(np.zeros((2, 3))) == "an array of shape (2, 3), float64"
    assert described(keras.Sequential) == "the class Sequential"
    assert described("model.keras") == "'model.keras'"
    assert described(["a" * 999]).startswith("a list, ['aaaa")
    assert len(described(["a" * 999])) < 200


def test_objects_print_as_what_they_are(mlp):
    assert repr(keras_trim.ConstantSparsity(0.5)) == (
        "ConstantSparsity(target_sparsity=0.5, begin_step=0, end_step=-1, frequency=100)"
    )
    assert repr(keras_trim.KeepZeros()) == "KeepZeros()"
    assert repr(Scheduled()) == "Scheduled()"
    assert repr(keras_trim.UpdatePruningStep()) == "UpdatePruningStep()"
    engine = keras_trim.inference.Engine(mlp, num_threads=1)
    name = mlp.inputs[0].name
    assert repr(engine) == f"<Engine of 2 operations on {name} (any, 8); num_threads=1>"
    keras_trim.prune_low_magnitude(mlp, keras_trim.ConstantSparsity(0.5))
    assert repr(keras_trim.Pruner(mlp)) == "<Pruner of 2 weights, at step 0>"
    optimizer = keras_trim.PruningOptimizer("sgd")
    assert repr(optimizer) == "<PruningOptimizer around SGD, not built>"
    optimizer.build(mlp.trainable_variables)
    assert repr(optimizer) == "<PruningOptimizer around SGD, 2 weights, at step 0>"


def test_training_that_forgets_to_prune(mlp, data):
    keras_trim.prune_low_magnitude(mlp)
    mlp.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"`callbacks=\[keras_trim.UpdatePruningStep\(\)\]`"):
        mlp.fit(*data, verbose=0)


def test_an_optimizer_for_a_model_without_marks(mlp, data):
    mlp.compile(keras_trim.PruningOptimizer("sgd"), "mse")
    with pytest.raises(ValueError, match=r"`keras_trim.prune_low_magnitude\(model, ...\)` first"):
        mlp.fit(*data, verbose=0)
    with pytest.raises(ValueError, match="`PruningOptimizer.keras.optimizers.Adam...`.*class Adam"):
        keras_trim.PruningOptimizer(keras.optimizers.Adam)


def test_a_model_of_which_a_part_is_built():
    class Headed(keras.Model):
        def __init__(self):
            super().__init__(name="headed")
            self.backbone = make_mlp()
            self.head = keras.layers.Dense(4, name="head")

        def call(self, x):
            return self.head(self.backbone(x))

    for call in (
        lambda model: keras_trim.prune(model, 0.5),
        lambda model: keras_trim.prune(model, 0.5, calibration_data=X[:, :8]),
        keras_trim.sparsity_report,
    ):
        with pytest.raises(ValueError, match="no weights yet.*model=headed, whose layers head are"):
            call(Headed())
    model = Headed()
    model(X[:, :8])
    keras_trim.prune(model, 0.5)
    assert [row.sparsity for row in keras_trim.sparsity_report(model).pruned_rows] == [0.5] * 3


def test_a_model_that_is_not_built_is_pruned_once_it_is(data):
    model = keras.Sequential([keras.layers.Dense(16), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="no weights yet"):
        keras_trim.prune(model, 0.5)
    keras_trim.prune_low_magnitude(model, keras_trim.ConstantSparsity(0.5))
    model.compile("sgd", "mse")
    fit(model, data)
    assert keras_trim.sparsity_report(model).sparsity == 0.5


def test_obvious_meanings():
    model = keras_trim.prune_low_magnitude(make_mlp(), sparsity_m_by_n="2:4")
    assert [row.pattern for row in keras_trim.sparsity_report(model).pruned_rows] == ["2:4"] * 2
    layer = keras.layers.Dense(8)
    layer.build((None, 8))
    keras_trim.prune_low_magnitude(layer, block_size=4)
    assert keras_trim.sparsity_report(layer).pruned_rows[0].pattern == "block 4x4 AVG"
    pruned = keras_trim.prune(make_mlp(), sparsity_m_by_n=(2, 4))
    assert keras_trim.sparsity_report(pruned).sparsity == 0.5
