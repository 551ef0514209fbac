"""Raises a helpful error for model files with TFMOT's wrappers, which Keras does not know."""

import keras


class PruneLowMagnitude(keras.layers.Layer):
    """Stands in for TFMOT's wrapper when a file is loaded; creating one raises `ValueError`."""

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


# TFMOT's files store the class under its bare name.
keras.saving.get_custom_objects().setdefault("PruneLowMagnitude", PruneLowMagnitude)
