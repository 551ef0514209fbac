"""Code written for TFMOT runs: the code of its guides, with `import keras_trim as tfmot`.

Also: our masks equal TFMOT's, and the code in the guides runs.
"""

import json
import pathlib
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from conftest import values
from keras import ops

import keras_trim as tfmot

BACKEND = keras.backend.backend()
ROOT = pathlib.Path(__file__).parents[1]
MASKS = np.load(pathlib.Path(__file__).with_name("data") / "tfmot_masks.npz")
CASES = json.loads(str(MASKS["cases"]))


@pytest.fixture
def images(rng):
    """Like MNIST: 64 gray images and their digits."""
    return rng.random((64, 28, 28)).astype("float32"), rng.integers(0, 10, 64)


@pytest.fixture
def vectors(rng):
    """32 vectors of 20 features and one-hot classes."""
    classes = keras.utils.to_categorical(rng.integers(0, 20, 32), 20)
    return rng.standard_normal((32, 20)).astype("float32"), classes.astype("float32")


def make_dense():
    return keras.Sequential([keras.Input((20,)), keras.layers.Dense(20), keras.layers.Flatten()])


def zeros(weight):
    return int(np.count_nonzero(values(weight) == 0))


def train(model, data, **kwargs):
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    return model.fit(*data, epochs=2, batch_size=8, verbose=0, callbacks=callbacks, **kwargs)


def zipped_size(file):
    archive = file.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", compression=zipfile.ZIP_DEFLATED) as target:
        target.write(file)
    return archive.stat().st_size


def test_every_name_is_there():
    assert sorted(tfmot.sparsity.keras.__all__) == [
        "ConstantSparsity",
        "PolynomialDecay",
        "PrunableLayer",
        "PruneForLatencyOnXNNPack",
        "PruningPolicy",
        "PruningSchedule",
        "PruningSummaries",
        "UpdatePruningStep",
        "prune_low_magnitude",
        "prune_scope",
        "strip_pruning",
    ]
    for name in tfmot.sparsity.keras.__all__:
        assert getattr(tfmot.sparsity.keras, name) is getattr(tfmot, name)


# The guide "Pruning in Keras example"


@pytest.mark.filterwarnings("ignore:The pruning schedule goes from 50% to 80% zeros at step 8")
def test_fine_tuning_a_classifier_of_digits(images, tmp_path):
    x, y = images
    model = keras.Sequential(
        [
            keras.layers.InputLayer(shape=(28, 28)),
            keras.layers.Reshape(target_shape=(28, 28, 1)),
            keras.layers.Conv2D(filters=12, kernel_size=(3, 3), activation="relu"),
            keras.layers.MaxPooling2D(pool_size=(2, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    dense_file = tmp_path / "dense.h5"
    keras.models.save_model(model, dense_file, include_optimizer=False)

    batch_size, epochs, validation_split = 16, 2, 0.1
    steps = np.ceil(len(x) * (1 - validation_split) / batch_size).astype(np.int32)
    pruning_params = {
        "pruning_schedule": tfmot.sparsity.keras.PolynomialDecay(
            initial_sparsity=0.50, final_sparsity=0.80, begin_step=0, end_step=steps * epochs
        )
    }
    model_for_pruning = tfmot.sparsity.keras.prune_low_magnitude(model, **pruning_params)
    model_for_pruning.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    callbacks = [
        tfmot.sparsity.keras.UpdatePruningStep(),
        tfmot.sparsity.keras.PruningSummaries(log_dir=str(tmp_path / "logs")),
    ]
    model_for_pruning.fit(
        x,
        y,
        batch_size=batch_size,
        epochs=epochs,
        validation_split=validation_split,
        callbacks=callbacks,
        verbose=0,
    )

    model_for_export = tfmot.sparsity.keras.strip_pruning(model_for_pruning)
    pruned_file = tmp_path / "pruned.h5"
    keras.models.save_model(model_for_export, pruned_file, include_optimizer=False)
    loaded = keras.models.load_model(pruned_file, compile=False)
    convolution, dense = loaded.layers[-4], loaded.layers[-1]
    assert zeros(convolution.kernel) == round(0.8 * 108)
    assert zeros(dense.kernel) == 0.8 * 20280
    assert zipped_size(pruned_file) < zipped_size(dense_file) / 2
    assert list((tmp_path / "logs" / "train").iterdir())


# The guide "Pruning comprehensive guide"


def test_prune_a_whole_model(vectors, tmp_path):
    weights = str(tmp_path / "pretrained.weights.h5")
    make_dense().save_weights(weights)
    base_model = make_dense()
    base_model.load_weights(weights)
    model_for_pruning = tfmot.sparsity.keras.prune_low_magnitude(base_model)
    model_for_pruning.summary()
    train(model_for_pruning, vectors)
    assert zeros(model_for_pruning.layers[0].kernel) == 200


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_prune_some_layers_with_clone_model(kind, vectors):
    def apply_pruning_to_dense(layer):
        if isinstance(layer, keras.layers.Dense):
            return tfmot.sparsity.keras.prune_low_magnitude(layer)
        return layer

    base_model = keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.Reshape((5, 4)),
            keras.layers.Conv1D(4, 2, padding="same"),
            keras.layers.Flatten(),
            keras.layers.Dense(20),
        ]
    )
    if kind == "functional":
        base_model = keras.Model(base_model.inputs, base_model.outputs)
    model_for_pruning = keras.models.clone_model(base_model, clone_function=apply_pruning_to_dense)
    train(model_for_pruning, vectors)
    convolution, _, dense = model_for_pruning.layers[-3:]
    assert (zeros(convolution.kernel), zeros(dense.kernel)) == (0, 200)
    # As with TFMOT, the clone shares its layers with the original model.
    assert dense is base_model.layers[-1]


def test_mark_a_layer_where_a_model_is_defined(vectors):
    inputs = keras.Input(shape=(20,))
    x = tfmot.sparsity.keras.prune_low_magnitude(keras.layers.Dense(10))(inputs)
    outputs = keras.layers.Dense(20)(keras.layers.Flatten()(x))
    functional = keras.Model(inputs=inputs, outputs=outputs)
    train(functional, vectors)
    assert [zeros(functional.layers[i].kernel) for i in (1, 3)] == [100, 0]

    sequential = keras.Sequential(
        [
            keras.Input(shape=(20,)),
            tfmot.sparsity.keras.prune_low_magnitude(keras.layers.Dense(20)),
            keras.layers.Flatten(),
        ]
    )
    train(sequential, vectors)
    assert zeros(sequential.layers[0].kernel) == 200


def test_choose_the_weights_of_a_layer(vectors):
    class MyDenseLayer(keras.layers.Dense, tfmot.sparsity.keras.PrunableLayer):
        def get_prunable_weights(self):
            return [self.kernel, self.bias]

    model = keras.Sequential(
        [
            keras.Input(shape=(20,)),
            tfmot.sparsity.keras.prune_low_magnitude(MyDenseLayer(20)),
            keras.layers.Flatten(),
        ]
    )
    train(model, vectors)
    assert [zeros(weight) for weight in model.layers[0].weights] == [200, 10]


@pytest.mark.parametrize("base", [(), (tfmot.sparsity.keras.PrunableLayer,)])
def test_a_custom_layer(base, vectors):
    class Scaled(keras.layers.Layer, *base):
        def build(self, input_shape):
            self.scale = self.add_weight(shape=(20,), name="scale", initializer="ones")
            self.table = self.add_weight(shape=(20, 20), name="table")

        def call(self, x):
            return ops.matmul(x, self.table) * self.scale

        def get_prunable_weights(self):
            return [self.table]

    layer = tfmot.sparsity.keras.prune_low_magnitude(Scaled())
    model = keras.Sequential([keras.Input((20,)), layer])
    train(model, vectors)
    assert (zeros(layer.table), zeros(layer.scale)) == (200, 0)


def gradients(model, x, y):
    """Gradients of the loss for the trainable variables, as custom loops compute them."""
    variables = model.trainable_variables
    loss_function = keras.losses.CategoricalCrossentropy(from_logits=True)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = loss_function(y, model(x, training=True))
        return tape.gradient(loss, variables)
    if BACKEND == "torch":
        model.zero_grad()
        loss_function(y, model(x, training=True)).backward()
        return [variable.value.grad for variable in variables]
    import jax

    def loss(trainable):
        others = [variable.value for variable in model.non_trainable_variables]
        outputs, _ = model.stateless_call(trainable, others, x, training=True)
        return loss_function(y, outputs)

    return jax.grad(loss)([variable.value for variable in variables])


def test_a_custom_training_loop(vectors, tmp_path):
    model_for_pruning = tfmot.sparsity.keras.prune_low_magnitude(make_dense())
    optimizer = keras.optimizers.Adam()
    unused_arg = -1

    model_for_pruning.optimizer = optimizer
    step_callback = tfmot.sparsity.keras.UpdatePruningStep()
    step_callback.set_model(model_for_pruning)
    log_callback = tfmot.sparsity.keras.PruningSummaries(log_dir=str(tmp_path))
    log_callback.set_model(model_for_pruning)

    # TFMOT's guide continues with `optimizer` itself. Here that is an error, not a dense model.
    variables = model_for_pruning.trainable_variables
    pairs = list(zip(gradients(model_for_pruning, *vectors), variables, strict=True))
    with pytest.raises(ValueError, match="marked for pruning, but nothing would prune it"):
        optimizer.apply_gradients(pairs)

    step_callback.on_train_begin()
    for _ in range(2):
        log_callback.on_epoch_begin(epoch=unused_arg)
        for _ in range(3):
            step_callback.on_train_batch_begin(batch=unused_arg)
            pairs = zip(gradients(model_for_pruning, *vectors), variables, strict=True)
            model_for_pruning.optimizer.apply_gradients(pairs)
            assert zeros(model_for_pruning.layers[0].kernel) == 200
        step_callback.on_epoch_end(batch=unused_arg)
    assert int(values(optimizer.iterations)) == 6


def test_checkpoint_and_deserialize(vectors, tmp_path):
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.5, 0, 16, power=1, frequency=1)
    model_for_pruning = tfmot.sparsity.keras.prune_low_magnitude(make_dense(), schedule)
    with pytest.warns(UserWarning, match="ends at step 16, but this `fit` goes from step 0 to 8"):
        train(model_for_pruning, vectors)
    assert zeros(model_for_pruning.layers[0].kernel) == 100
    path = str(tmp_path / "model.keras")
    model_for_pruning.save(path, include_optimizer=True)
    with tfmot.sparsity.keras.prune_scope():
        loaded_model = keras.models.load_model(path)
    loaded_model.summary()
    loaded_model.fit(
        *vectors,
        batch_size=8,
        epochs=2,
        verbose=0,
        callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
    )
    assert zeros(loaded_model.layers[0].kernel) == 200


def test_export_with_size_compression(vectors, tmp_path):
    def zipped_model_size(model):
        file = tmp_path / "model.h5"
        model.save(file, include_optimizer=False)
        return zipped_size(file)

    dense_size = zipped_model_size(make_dense())
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.9, 0)
    model_for_pruning = tfmot.sparsity.keras.prune_low_magnitude(make_dense(), schedule)
    train(model_for_pruning, vectors)
    model_for_export = tfmot.sparsity.keras.strip_pruning(model_for_pruning)
    assert zeros(model_for_export.layers[0].kernel) == 360
    assert zipped_model_size(model_for_export) < dense_size


def test_blocks_for_registers(vectors):
    pruning_params = {"block_size": [1, 16]}
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(32), keras.layers.Dense(20)])
    model_for_pruning = tfmot.sparsity.keras.prune_low_magnitude(model, **pruning_params)
    train(model_for_pruning, vectors)
    kernel = values(model.layers[0].kernel).reshape(20, 2, 16)
    assert sorted((kernel == 0).sum(2).ravel()) == [0] * 20 + [16] * 20
    kernel = values(model.layers[1].kernel)  # each row is a block of 16 weights and one of 4
    blocks = [block for row in kernel for block in np.split(row, [16])]
    assert sum(not block.any() for block in blocks) == 32
    assert all(block.all() or not block.any() for block in blocks)


# The guide "Structural pruning M by N"


def test_structural_pruning_2_by_4(images):
    pruning_params_2_by_4 = {"sparsity_m_by_n": (2, 4)}
    pruning_params_unstructured = {
        "pruning_schedule": tfmot.sparsity.keras.ConstantSparsity(
            target_sparsity=0.5, begin_step=0, frequency=100
        )
    }
    prune_low_magnitude = tfmot.sparsity.keras.prune_low_magnitude
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            prune_low_magnitude(
                keras.layers.Conv2D(8, 5, strides=3, padding="same", activation="relu"),
                **pruning_params_unstructured,
            ),
            prune_low_magnitude(keras.layers.Conv2D(8, 5, padding="same"), **pruning_params_2_by_4),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D((2, 2), (2, 2), padding="same"),
            keras.layers.Flatten(),
            prune_low_magnitude(keras.layers.Dense(16, activation="relu"), **pruning_params_2_by_4),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss)
    callback = tfmot.sparsity.keras.UpdatePruningStep()
    x, y = images
    model.fit(x[..., None], y, batch_size=16, epochs=2, verbose=0, callbacks=callback)
    model = tfmot.sparsity.keras.strip_pruning(model)
    unstructured, convolution, dense, last = (
        values(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")
    )
    assert (unstructured == 0).sum() == 100
    assert (last != 0).all()
    for kernel in (convolution, dense):
        groups = kernel.reshape(-1, 4, kernel.shape[-1])  # along the input channels
        assert ((groups == 0).sum(1) == 2).all()


# The guide "Pruning for on-device inference w/ XNNPACK"


def mobile(keepdims):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.InputLayer(shape=(16, 16, 3)),
            layers.ZeroPadding2D(padding=1),
            layers.Conv2D(filters=8, kernel_size=(3, 3), strides=(2, 2), padding="valid"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.ZeroPadding2D(padding=1),
            layers.DepthwiseConv2D(kernel_size=(3, 3), strides=(2, 2), padding="valid"),
            layers.ReLU(),
            layers.Conv2D(filters=32, kernel_size=(1, 1)),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(keepdims=keepdims),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


@pytest.mark.filterwarnings("ignore:The pruning schedule goes from 25% to 75% zeros in one jump")
def test_pruning_for_latency_on_xnnpack(rng):
    pruning_params = {
        "pruning_schedule": tfmot.sparsity.keras.PolynomialDecay(
            initial_sparsity=0.25, final_sparsity=0.75, begin_step=0, end_step=6
        ),
        "pruning_policy": tfmot.sparsity.keras.PruneForLatencyOnXNNPack(),
    }
    dense_model = mobile(keepdims=False)
    with pytest.raises(ValueError, match="needs keepdims=True"):
        tfmot.sparsity.keras.prune_low_magnitude(dense_model, **pruning_params)
    fixed_dense_model = mobile(keepdims=True)
    fixed_dense_model.set_weights(dense_model.get_weights())
    model_for_pruning = tfmot.sparsity.keras.prune_low_magnitude(
        fixed_dense_model, **pruning_params
    )
    data = rng.random((32, 16, 16, 3)).astype("float32"), np.eye(10)[rng.integers(0, 10, 32)]
    train(model_for_pruning, data)
    kernels = [layer.kernel for layer in model_for_pruning.layers if hasattr(layer, "kernel")]
    assert [zeros(kernel) for kernel in kernels] == [0, 0, 192, 0]


# Subclasses of TFMOT's classes


def test_a_schedule_in_the_terms_of_tfmot(vectors):
    class Late(tfmot.sparsity.keras.PruningSchedule):
        def __init__(self, target, begin_step, end_step, frequency):
            self.target, self.begin_step, self.end_step = target, begin_step, end_step
            self.frequency = frequency
            self._validate_step(begin_step, end_step, frequency, False)
            self._validate_sparsity(target, "target")

        def __call__(self, step):
            should_prune = self._should_prune_in_step(
                step, self.begin_step, self.end_step, self.frequency
            )
            return should_prune, ops.convert_to_tensor(self.target, "float32")

        def get_config(self):
            return {"target": self.target, "begin_step": self.begin_step}

    with pytest.raises(ValueError, match="`end_step` must not come before `begin_step`"):
        Late(0.25, 8, 4, 2)
    model = tfmot.sparsity.keras.prune_low_magnitude(make_dense(), Late(0.25, 3, 8, 2))

    class Count(keras.callbacks.Callback):
        zeros = []

        def on_train_batch_end(self, batch, logs=None):
            self.zeros.append(zeros(self.model.layers[0].kernel))

    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep(), Count()]
    model.fit(*vectors, epochs=2, batch_size=8, verbose=0, callbacks=callbacks)
    assert Count.zeros == [0, 0, 100, 100, 100, 100, 100, 100]


def test_a_policy_in_the_terms_of_tfmot(vectors):
    class OnlyWide(tfmot.sparsity.keras.PruningPolicy):
        def allow_pruning(self, layer):
            return isinstance(layer, keras.layers.Dense) and layer.units >= 20

        def ensure_model_supports_pruning(self, model):
            if len(model.layers) > 3:
                raise ValueError("too deep")

    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10), keras.layers.Dense(20)])
    tfmot.sparsity.keras.prune_low_magnitude(model, pruning_policy=OnlyWide())
    train(model, vectors)
    assert [zeros(layer.kernel) for layer in model.layers] == [0, 100]


# Masks


def name_of(case):
    options = "-".join(str(value) for value in case["arguments"].values())
    return f"{case['weights']}-{case['sparsity']}{options and '-' + options}"


def our_mask(case):
    weights = MASKS[case["weights"]]
    *window, inputs, outputs = weights.shape
    if window:
        layer = keras.layers.Conv2D(outputs, window, use_bias=False)
    else:
        layer = keras.layers.Dense(outputs, use_bias=False)
    layer.build((None, *window, inputs))
    layer.kernel.assign(weights)
    tfmot.prune(layer, case["sparsity"], **case["arguments"])
    return values(layer.kernel) != 0


@pytest.mark.slow
@pytest.mark.parametrize("i", range(len(CASES) - 1), ids=lambda i: name_of(CASES[i]))
def test_masks_equal_those_of_tfmot(i):
    np.testing.assert_array_equal(our_mask(CASES[i]), MASKS[f"mask_{i}"])


def test_counts_may_differ_by_one():
    # Half of 9: we round the zeros, 4.5, and TFMOT rounds the kept weights, 4.5. Both become 4.
    case = CASES[-1]
    ours, theirs = our_mask(case), MASKS[f"mask_{len(CASES) - 1}"]
    assert (np.count_nonzero(~ours), np.count_nonzero(~theirs)) == (4, 5)
    assert (ours | theirs == ours).all()


# Documents


def python_blocks(document):
    """Returns the code of the blocks of a document that start with ```python.

    A block below the line "<!-- tensorflow -->" only runs on that backend. Blocks that should not
    run at all start with ```text or ```bash.
    """
    blocks = re.findall(
        r"^(?:<!-- (\w+) -->\n)?```python\n(.*?)^```$", document.read_text(), re.M | re.S
    )
    return [code for backend, code in blocks if backend in ("", BACKEND)]


RUNNER = """
import sys, warnings
import keras, keras_trim
warnings.simplefilter("error", UserWarning)
namespace = {"__name__": "__main__"}
for i, code in enumerate(sys.stdin.read().split("\\0")):
    exec(compile(code, f"block {i}", "exec"), namespace)
"""


DOCUMENTS = (
    "docs/concepts.md",
    "docs/training.md",
    "docs/one_shot.md",
    "docs/files.md",
    "docs/deployment.md",
    "docs/inference.md",
    "docs/migrating_from_tfmot.md",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_code_in_documents_runs(name, tmp_path):
    if name == "docs/deployment.md" and BACKEND != "tensorflow":
        pytest.skip("half a minute, most of it TensorFlow's converter")
    shown_elsewhere = ("docs/concepts.md", "docs/training.md", "docs/one_shot.md", "docs/files.md")
    if name in shown_elsewhere and BACKEND != "torch":
        pytest.skip("other tests run on every backend what it shows")
    if name == "docs/inference.md" and BACKEND != "jax":
        pytest.skip("the engine computes the same whatever the backend")
    blocks = python_blocks(ROOT / name)
    if not blocks:
        return
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input="\0".join(blocks),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
