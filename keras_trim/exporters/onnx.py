"""ONNX files, in float32.

PyTorch's exporter makes them, so this runs under the torch backend: it is the one that keeps the
batch size open for all of Keras's layers and adds no casts.
"""

import contextlib
import io
import logging
import warnings

import keras

from keras_trim.exporters.samples import (
    input_structure,
    largest_difference,
    outputs_of,
    sample_inputs,
)

BACKEND = "torch"
PACKAGES = ("onnx", "onnxruntime", "onnxscript", "torch")
# Of a converted file's outputs on random inputs to the model's, over the largest.
_TOLERANCE = 1e-3
# Two sample sizes that no layer has: the exporter takes a size of 1 for a constant.
_BATCH = 2


def convert(model):
    """Converts a model under the torch backend.

    Args:
        model: Keras model that is built.

    Returns:
        Tuple of the bytes of the file and a dict of facts.

    Raises:
        ValueError: if the model cannot be converted.
    """
    notes = []
    batch_size = None
    try:
        data = _convert(model, batch_size)
    except Exception as error:
        if model.inputs[0].shape[0] is not None:
            raise _failure(error, model) from error
        batch_size = 1
        try:
            data = _convert(model, batch_size)
        except Exception as error:
            raise _failure(error, model) from error
        notes.append(
            "the file takes one example at a time: PyTorch's exporter cannot convert this model "
            "for batches of any size"
        )
    _verify(data, model, batch_size)
    return data, {"is_sparse": False, "batch_size": batch_size, "warnings": notes}


def _failure(error, model):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0][:300].rstrip(".") if lines else type(error).__name__
    return ValueError(
        f"PyTorch's exporter cannot convert this model to ONNX: {reason}. "
        f"Received: model={model.name}"
    )


def _convert(model, batch_size):
    import torch

    class Call(torch.nn.Module):
        """The model as a function of flat inputs, with flat outputs."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *inputs):
            structure = keras.tree.pack_sequence_as(input_structure(model), list(inputs))
            return tuple(keras.tree.flatten(self.model(structure, training=False)))

    samples = sample_inputs(model.inputs, batch_size or _BATCH)
    inputs = tuple(keras.ops.convert_to_tensor(sample) for sample in samples)
    shapes = [_dynamic_sizes(tensor, i, batch_size) for i, tensor in enumerate(model.inputs)]
    was_training = model.training
    with _quiet():
        try:
            program = torch.onnx.export(
                Call().eval(),
                inputs,
                dynamo=True,
                verbose=False,
                input_names=[tensor.name for tensor in model.inputs],
                output_names=_output_names(model),
                dynamic_shapes=(tuple(shapes),),
            )
            program.optimize()
        finally:
            model.train(was_training)
    return program.model_proto.SerializeToString()


def _dynamic_sizes(tensor, index, batch_size):
    """The axes of an input whose size the file leaves open, as PyTorch's exporter takes them."""
    import torch

    sizes = {}
    for axis, size in enumerate(tensor.shape):
        if size is None and not (axis == 0 and batch_size):
            sizes[axis] = torch.export.Dim("batch" if axis == 0 else f"size_{index}_{axis}")
    return sizes


def _output_names(model):
    names = getattr(model, "output_names", None) or []
    count = len(keras.tree.flatten(model.outputs))
    is_usable = len(names) == count == len(set(names))
    return list(names) if is_usable else [f"output_{i}" for i in range(count)]


@contextlib.contextmanager
def _quiet():
    """Keeps the exporter's progress, and warnings about its own parts, from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _verify(data, model, batch_size):
    import onnxruntime

    samples = sample_inputs(model.inputs, batch_size or _BATCH + 1)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        values = session.run(None, dict(zip(names, samples, strict=True)))
    except Exception as error:
        raise ValueError(
            f"ONNX Runtime cannot run the file made of this model: {error}. "
            f"Received: model={model.name}"
        ) from error
    difference = largest_difference(values, outputs_of(model, samples))
    if difference > _TOLERANCE:
        raise ValueError(
            "The ONNX file made of this model does not give its outputs: they differ by "
            f"{difference:.2g} of the largest. Received: model={model.name}"
        )
