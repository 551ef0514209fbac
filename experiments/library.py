"""The library that prunes: keras-trim on Keras 3, or TFMOT on its own Keras 2.

Their names are the same. The environment variable `LIBRARY` chooses, as the interpreters differ.
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
