"""One-shot pruning of networks that are trained here: CIFAR-10 and movie reviews."""

import json
import math

import keras
import numpy as np

import keras_trim
from benchmarks import _packs, _trained
from benchmarks.one_shot import NUM_EXAMPLES, estimate_statistics, prune

TARGETS = (0.5, "2:4", 0.75, 0.8, 0.9, (0.8, (4, 1)))
METHODS = ("magnitude", "sparsegpt", "reconstruct")
BATCH_SIZE = 128
EPOCHS = {"cifar_cnn": 10, "cifar_resnet": 10, "review_transformer": 6}
FINE_TUNING = (1, 2, 4)  # epochs


def cifar(arguments):
    """Dict: network -> results. The eight convolutions are also fine-tuned after pruning."""
    path = arguments.data / "cifar10_jpeg.npz"
    x, y = _packs.images(path, 0)
    x_test, y_test = _packs.images(path, 2)
    train, validation = (x[:45_000], y[:45_000]), (x[45_000:], y[45_000:])
    parts = {"val": validation, "test": (x_test, y_test)}
    parts = {name: (_trained.scale(images), labels) for name, (images, labels) in parts.items()}
    chosen = np.random.default_rng(0).choice(len(train[0]), NUM_EXAMPLES, False)
    examples = _trained.scale(train[0][chosen])
    results = {}
    for name in ("cifar_cnn", "cifar_resnet"):
        data = _trained.Augmented(*train, BATCH_SIZE)
        model = _get(name, lambda model, data=data, name=name: _train_pictures(model, data, name))

        def measure(model=model):
            return {part: _accuracy(model, *own) for part, own in parts.items()}

        results[name] = _prune_all(model, examples, measure)
        if name == "cifar_cnn":
            results[name]["fine_tuned"] = _fine_tune(model, examples, train, measure)
    return results


def _train_pictures(model, data, name):
    _trained.train(model, data, EPOCHS[name])


def _get(name, train):
    """Returns a network with trained weights, from the cache if possible."""
    model = getattr(_trained, name)()
    path = _trained.CACHE / f"{name}.weights.h5"
    if not path.exists():
        keras.utils.set_random_seed(0)
        model = getattr(_trained, name)()
        train(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save_weights(path)
    model.load_weights(path)
    return model


def _accuracy(model, x, y):
    outputs = model.predict(x, batch_size=250, verbose=0)
    answers = outputs.argmax(-1) if outputs.shape[-1] > 1 else outputs[:, 0] > 0
    return float(np.mean(answers == y))


def _prune_all(model, examples, measure):
    """Dict with the accuracy of the dense network, and of each target and method."""
    weights = model.get_weights()
    results = {"dense": measure()}
    estimate_statistics(model, examples)
    results["dense + statistics"] = measure()
    for target in TARGETS:
        found = results.setdefault(str(target), {})
        for method in METHODS:
            seconds = prune(model, weights, examples, target, method, update_statistics=False)
            found[method] = measure() | {"seconds": seconds}
            seconds += estimate_statistics(model, examples)
            found[f"{method} + statistics"] = measure() | {"seconds": seconds}
        print(model.name, target, json.dumps(found), flush=True)
    model.set_weights(weights)
    return results


def _fine_tune(model, examples, train, measure, sparsity=0.9):
    """Dict: epochs -> accuracy of one-shot plus `KeepZeros`, and of gradual pruning."""
    weights, results = model.get_weights(), {}
    steps = math.floor(len(train[0]) / BATCH_SIZE)
    for epochs in FINE_TUNING:
        found = results.setdefault(str(epochs), {})
        for name in ("one shot, KeepZeros", "gradual"):
            keras.utils.set_random_seed(0)
            model.set_weights(weights)
            if name == "gradual":
                end = epochs * steps * 2 // 3
                schedule = keras_trim.PolynomialDecay(0.0, sparsity, 0, end, frequency=end // 20)
            else:
                prune(model, weights, examples, sparsity, "reconstruct")
                schedule = keras_trim.KeepZeros()
            keras_trim.prune_low_magnitude(model, schedule)
            data = _trained.Augmented(*train, BATCH_SIZE)
            callbacks = [keras_trim.UpdatePruningStep()]
            _trained.train(model, data, epochs, learning_rate=1e-3, callbacks=callbacks)
            keras_trim.strip_pruning(model)
            zeros = keras_trim.sparsity_report(model).model_sparsity
            found[name] = measure() | {"zeros": zeros}
        print(epochs, json.dumps(found), flush=True)
    return results


def reviews(arguments):
    """Dict of results for a small transformer encoder that classifies reviews."""
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
        )

    model = _get("review_transformer", fit)

    def measure():
        return {name: _accuracy(model, words[own], labels[own]) for name, own in parts.items()}

    return _prune_all(model, words[train[:NUM_EXAMPLES]], measure)
