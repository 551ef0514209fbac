"""The process in which TensorFlow's calibrator runs, which crashes on some models.

It reads TensorFlow's saved model, so it needs no classes of the user.
"""

import json
import os
import sys
import tempfile

from keras_trim.exporters import conversion_worker
from keras_trim.exporters.reasons import reason

_FILE, _ERROR = "model.tflite", "error.txt"


def calibrate(folder, names, examples, model):
    """Converts a saved model to a file in int8, with ranges measured on examples.

    Args:
        folder: String. The folder of TensorFlow's saved model.
        names: List of strings: the names of the inputs.
        examples: List of lists of arrays: the inputs of each call.
        model: The Keras model, for error messages.

    Returns:
        Bytes of the file.

    Raises:
        ValueError: if TensorFlow cannot convert the model, or crashes.
    """
    with tempfile.TemporaryDirectory(prefix="keras_trim_") as own:
        stored = conversion_worker.store_arrays(own, examples, "examples")
        job = {"saved": folder, "own": own, "names": names, "examples": stored}
        process = conversion_worker.run(__name__, job, "tensorflow")
        if os.path.exists(os.path.join(own, _FILE)):
            with open(os.path.join(own, _FILE), "rb") as file:
                return file.read()
        if os.path.exists(os.path.join(own, _ERROR)):
            with open(os.path.join(own, _ERROR), encoding="utf-8") as file:
                why = reason(ValueError(file.read()), model._flatten_layers())
        else:
            why = (
                f"its calibrator ended with exit code {process.returncode}, as it does for "
                "recurrent layers"
            )
        raise ValueError(
            f"TensorFlow's converter cannot measure the activations of this model: {why}. Leave "
            "out `representative_data`: weights='int8' alone stores small weights. "
            f"Received: model={model.name}"
        )


def main():
    """Runs the job that `calibrate` writes to standard input."""
    import tensorflow as tf

    job = json.load(sys.stdin)
    examples = conversion_worker.load_arrays(job["own"], job["examples"])
    converter = tf.lite.TFLiteConverter.from_saved_model(job["saved"])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = lambda: (
        dict(zip(job["names"], arrays, strict=True)) for arrays in examples
    )
    try:
        data = converter.convert()
    except Exception as error:  # converters may raise anything
        with open(os.path.join(job["own"], _ERROR), "w", encoding="utf-8") as file:
            file.write(str(error) or type(error).__name__)
        return
    with open(os.path.join(job["own"], _FILE), "wb") as file:
        file.write(data)


if __name__ == "__main__":
    main()
