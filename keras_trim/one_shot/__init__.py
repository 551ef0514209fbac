"""Pruning a trained model at once: on examples, without labels and without training."""

from keras_trim.one_shot.prune import prune as prune
