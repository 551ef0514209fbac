"""So that `keras_trim.sparsity.keras` reads as `tfmot.sparsity.keras` does."""

from keras_trim.sparsity import keras as keras
