"""Reads examples to calibrate on."""

import keras
import numpy as np

from keras_trim import batches, model_inputs
from keras_trim.one_shot.steps import functional_of


def read_examples(model, data, batch_size, name="calibration_data"):
    """List of checked batches: structures of NumPy arrays without NaN.

    Args:
        model: Keras model or layer.
        data: Inputs as for `model.predict`.
        batch_size: Integer.
        name: String. The name of the caller's argument, for error messages.
    """
    cardinality = getattr(data, "cardinality", None)  # of a `tf.data.Dataset`
    is_endless = callable(cardinality) and int(cardinality()) == -1
    cure = "pass `dataset.take(16)` for 16 batches of it"
    if isinstance(data, keras.utils.PyDataset):
        is_endless, cure = data.num_batches is None, "let its `num_batches` be a number"
    if is_endless:
        raise ValueError(
            f"`{name}` is read to its end, and this dataset repeats forever: {cure}. "
            f"Received: {batches.describe(data)}"
        )
    with batches.naming(name):
        is_functional = functional_of(model) is not None
        structure, specs = model_inputs.signature(model) if is_functional else (None, None)
        read = list(batches.iterate(batches.calls(data, structure), batch_size, name=name))
        if is_functional:
            read = [
                keras.tree.pack_sequence_as(
                    structure, model_inputs.flatten(batch, structure, specs)
                )
                for batch in read
            ]
    for batch in read:
        for array in keras.tree.flatten(batch):
            if np.asarray(array).dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(
                    f"`{name}` has NaN or infinity: leave those examples out. Received: "
                    f"{np.count_nonzero(~np.isfinite(array))} such numbers in a batch of shape "
                    f"{np.shape(array)}"
                )
    return read
