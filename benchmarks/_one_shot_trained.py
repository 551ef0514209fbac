"""One-shot pruning of networks that are trained here: CIFAR-10 and movie reviews."""

import math

import keras
import numpy as np

import keras_trim
from benchmarks import _packs, _trained
from benchmarks._one_shot_measure import (
    NUM_EXAMPLES,
    Clock,
    estimate_statistics,
    measure_pruned,
)

TARGETS = (0.5, "2:4", 0.75, 0.8, 0.9, (0.8, (4, 1)))
METHODS = ("reconstruct", "magnitude", "sparsegpt")
BATCH_SIZE = 128
EPOCHS = {"cifar_cnn": 8, "cifar_resnet": 5, "review_transformer": 6}
FINE_TUNING = (1, 2, 4)  # epochs


def cifar(arguments, cells):
    """Measures two networks. The eight convolutions are also fine-tuned after pruning."""
    path = arguments.data / "cifar10_jpeg.npz"
    x, y = _packs.images(path, 0)
    x_test, y_test = _packs.images(path, 2)
    order = np.random.default_rng(0).permutation(len(x))  # the pack is sorted by class
    train, validation = ((x[own], y[own]) for own in np.split(order, [45_000]))
    parts = {"val": validation, "test": (x_test, y_test)}
    parts = {name: (_trained.scale(images), labels) for name, (images, labels) in parts.items()}
    chosen = np.random.default_rng(0).choice(len(train[0]), NUM_EXAMPLES, False)
    examples = _trained.scale(train[0][chosen])
    for name in ("cifar_cnn", "cifar_resnet"):

        def fit(model, name=name):
            data = _trained.Augmented(*train, BATCH_SIZE)
            _trained.train(model, data, EPOCHS[name], callbacks=[_backup(name)])

        model = _get(name, fit)

        def measure(model=model):
            return {part: _accuracy(model, *own) for part, own in parts.items()}

        prune_all(cells, name, model, examples, measure)
        if name == "cifar_cnn":
            _fine_tune(cells, model, examples, train, measure)


def _backup(name):
    """Returns a callback that lets interrupted training resume from the last epoch."""
    return keras.callbacks.BackupAndRestore(_trained.CACHE / f"{name}_backup")


def _get(name, train):
    """Returns a network with trained weights, from the cache if possible."""
    model = getattr(_trained, name)()
    path = _trained.CACHE / f"{name}.weights.h5"
    if not path.exists():
        keras.utils.set_random_seed(0)
        model = getattr(_trained, name)()
        path.parent.mkdir(parents=True, exist_ok=True)
        train(model)
        model.save_weights(path)
    model.load_weights(path)
    return model


def _accuracy(model, x, y):
    outputs = model.predict(x, batch_size=250, verbose=0)
    answers = outputs.argmax(-1) if outputs.shape[-1] > 1 else outputs[:, 0] > 0
    return float(np.mean(answers == y))


def prune_all(cells, name, model, examples, measure, targets=TARGETS, methods=METHODS):
    """Measures the dense network, and each target and method."""
    weights = model.get_weights()

    def estimated():
        estimate_statistics(model, examples)
        return measure()

    cells.measure(name, "dense", by=measure)
    cells.measure(name, "dense + statistics", by=estimated)
    for method in methods:
        for target in targets:
            own = {"target": target, "method": method}
            measure_pruned(cells, (name, target), model, weights, examples, measure, **own)
    model.set_weights(weights)


def _fine_tune(cells, model, examples, train, measure, sparsity=0.9):
    """Measures one shot plus epochs of `KeepZeros`, and the same epochs of gradual pruning."""
    weights = model.get_weights()
    steps = len(train[0]) // BATCH_SIZE

    def tune(epochs, is_gradual):
        keras.utils.set_random_seed(0)
        model.set_weights(weights)
        clock = Clock()
        if is_gradual:
            end = math.ceil(epochs * steps * 2 / 3)
            schedule = keras_trim.PolynomialDecay(0.0, sparsity, 0, end, frequency=end // 20)
        else:
            keras_trim.prune(model, sparsity, calibration_data=examples)
            schedule = keras_trim.KeepZeros()
        keras_trim.prune_low_magnitude(model, schedule)
        data = _trained.Augmented(*train, BATCH_SIZE)
        callbacks = [keras_trim.UpdatePruningStep()]
        _trained.train(model, data, epochs, learning_rate=1e-3, callbacks=callbacks)
        keras_trim.strip_pruning(model)
        zeros = keras_trim.sparsity_report(model).model_sparsity
        return clock.read() | measure() | {"zeros": zeros}

    for epochs in FINE_TUNING:
        for name in ("one shot, KeepZeros", "gradual"):
            key = ("fine-tuned", f"{epochs} epochs", name)
            cells.measure(*key, by=lambda e=epochs, g=name == "gradual": tune(e, g))
    model.set_weights(weights)


def reviews(arguments, cells):
    """Measures a small transformer encoder that classifies reviews."""
    texts, labels = _packs.movie_reviews(arguments.data)
    keras.utils.set_random_seed(0)
    order = np.random.default_rng(0).permutation(len(texts))
    counts = [len(texts) * 8 // 10, len(texts) * 9 // 10]
    train, validation, test = np.split(order, counts)
    vocabulary = keras.layers.TextVectorization(
        _trained.VOCABULARY, output_sequence_length=_trained.LENGTH
    )
    vocabulary.adapt([texts[i] for i in train])
    words = keras.ops.convert_to_numpy(vocabulary(texts)).astype("int32")
    parts = {"val": validation, "test": test}

    def fit(model):
        rate = keras.optimizers.schedules.CosineDecay(
            1e-3, len(train) // 64 * EPOCHS["review_transformer"]
        )
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(keras.optimizers.AdamW(rate), loss)
        model.fit(
            words[train],
            labels[train],
            batch_size=64,
            epochs=EPOCHS["review_transformer"],
            verbose=2,
            callbacks=[_backup("review_transformer")],
        )

    model = _get("review_transformer", fit)

    def measure():
        return {name: _accuracy(model, words[own], labels[own]) for name, own in parts.items()}

    prune_all(cells, model.name, model, words[train[:NUM_EXAMPLES]], measure)
