"""The pruning library: keras-trim on Keras 3, or TFMOT on Keras 2.

Both have the same names. The environment variable `LIBRARY` selects one of them, because each runs
in an interpreter of its own.
"""

import os

NAME = os.environ.get("LIBRARY", "keras-trim")

if NAME == "TFMOT":
    import tf_keras as keras
    from tensorflow_model_optimization.sparsity import keras as sparsity

    Dataset = keras.utils.Sequence
else:
    import keras

    from keras_trim.sparsity import keras as sparsity

    Dataset = keras.utils.PyDataset

__all__ = ["NAME", "Dataset", "keras", "sparsity"]
