"""Makes tfmot_masks.npz: weights, and the masks that TFMOT computes for them.

It ran with tensorflow-model-optimization 0.8.1, tf_keras 2.21.0, tensorflow 2.21.0, numpy 2.4.6 and
Python 3.11 (TFMOT needs an environment of its own, with `tf_keras` in place of Keras 3):

    TF_USE_LEGACY_KERAS=1 python tests/data/make_tfmot_masks.py

The file has an array `cases`, a JSON list, and for its i-th entry an array `mask_i`. An entry names
the array of `weights`, the `sparsity` and the `arguments` of `prune_low_magnitude`.
"""

import json
import os
import pathlib

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from tf_keras import layers

KERNELS = {
    "dense_16x12": (16, 12),
    "dense_10x6": (10, 6),
    "dense_3x3": (3, 3),
    "conv_3x3x8x4": (3, 3, 8, 4),
    "conv_3x3x6x4": (3, 3, 6, 4),
}


def cases():
    for sparsity in (0.1, 0.25, 0.5, 0.8, 0.99):
        yield "dense_16x12", sparsity, {}
        yield "conv_3x3x8x4", sparsity, {}
    for pooling in ("AVG", "MAX"):
        for block_size in ((4, 4), (2, 3), (1, 4), (8, 1)):
            for sparsity in (0.25, 0.75):
                arguments = {"block_size": block_size, "block_pooling_type": pooling}
                yield "dense_16x12", sparsity, arguments
    for zeros, group in ((2, 4), (1, 4), (5, 8)):
        # With 10 and 6 inputs, the last group is shorter.
        for weights in ("dense_16x12", "dense_10x6", "conv_3x3x8x4", "conv_3x3x6x4"):
            yield weights, zeros / group, {"sparsity_m_by_n": (zeros, group)}
    yield "dense_3x3", 0.5, {}  # half of 9


def tfmot_mask(weights, sparsity, arguments):
    *window, inputs, outputs = weights.shape
    if window:
        layer = layers.Conv2D(outputs, window, use_bias=False, input_shape=(*window, inputs))
    else:
        layer = layers.Dense(outputs, use_bias=False, input_shape=(inputs,))
    schedule = tfmot.sparsity.keras.ConstantSparsity(sparsity, 1, frequency=1)
    wrapper = tfmot.sparsity.keras.prune_low_magnitude(layer, schedule, **arguments)
    model = tf_keras.Sequential([wrapper])
    layer.set_weights([weights])
    callback = tfmot.sparsity.keras.UpdatePruningStep()
    callback.set_model(model)
    callback.on_train_begin()
    model(tf.zeros((1, *window, inputs)), training=True)  # step 1 computes the mask
    ((_, mask, _),) = wrapper.pruning_vars
    return mask.numpy() != 0


def main():
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape).astype("float32") for name, shape in KERNELS.items()}
    entries = []
    for i, (weights, sparsity, arguments) in enumerate(cases()):
        entries.append({"weights": weights, "sparsity": sparsity, "arguments": arguments})
        arrays[f"mask_{i}"] = tfmot_mask(arrays[weights], sparsity, arguments)
    path = pathlib.Path(__file__).with_name("tfmot_masks.npz")
    np.savez_compressed(path, cases=json.dumps(entries), **arrays)
    print(f"{path.name}: {len(entries)} masks, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
