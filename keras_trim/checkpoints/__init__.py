"""Resumes interrupted training from its last checkpoint."""

from keras_trim.checkpoints.callback import Checkpoint as Checkpoint
