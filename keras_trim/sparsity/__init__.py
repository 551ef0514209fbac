"""Makes `keras_trim.sparsity.keras` mirror `tfmot.sparsity.keras`."""

from keras_trim.sparsity import keras as keras
