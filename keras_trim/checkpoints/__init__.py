"""Training that was interrupted goes on where its last checkpoint was written."""

from keras_trim.checkpoints.callback import Checkpoint as Checkpoint
