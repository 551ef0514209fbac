"""An error for files of models that TFMOT wraps still: Keras would call the layer unknown."""

import keras


class PruneLowMagnitude(keras.layers.Layer):
    """Stands for TFMOT's wrapper in files; it cannot be made."""

    def __init__(self, *args, **kwargs):
        name = kwargs.get("name", "a layer")
        raise ValueError(
            "The file holds a model that TFMOT is still pruning: its layers are wrapped in "
            "`PruneLowMagnitude`. Load it with TFMOT, call "
            "`tfmot.sparsity.keras.strip_pruning(model)` there, save it as `.h5`, and load that; "
            "`keras_trim.prune_low_magnitude` then prunes it further. Received: the layer "
            f"'{name}' of class PruneLowMagnitude"
        )

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


# By the bare name that TFMOT's files have.
keras.saving.get_custom_objects().setdefault("PruneLowMagnitude", PruneLowMagnitude)
