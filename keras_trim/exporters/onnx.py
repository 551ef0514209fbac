"""Writes ONNX files.

PyTorch's exporter makes them, so this runs under the torch backend: only that exporter keeps the
batch size free for all of Keras's layers and adds no casts. Recurrent layers become ONNX loops,
because PyTorch's exporter would unroll them for a fixed number of steps.
"""

import contextlib
import io
import logging
import warnings

import keras

from keras_trim.exporters import onnx_files, onnx_padding, onnx_recurrence, time_distributed
from keras_trim.exporters.cases import input_structure
from keras_trim.exporters.reasons import reason
from keras_trim.exporters.samples import random_inputs
from keras_trim.exporters.verification import Converted, FileDiffersError, one_example, verify

BACKEND = "torch"
RUNTIME = "ONNX Runtime"
PACKAGES = ("onnx", "onnxruntime", "onnxscript", "torch")
# Sample sizes that no layer has. The exporter treats a size of 1 as a constant.
_BATCH = 2
_UNKNOWN_SIZE = 32
_HALF_TOLERANCE = 0.02  # for weights in float16


def convert(model, cases, weights=None, names=None):
    """Converts a model under the torch backend.

    Args:
        model: Built Keras model in float32.
        cases: List of `Case` to verify the file with.
        weights: `None` or `"float16"`.
        names: Pair of lists: the names of inputs and outputs in the file.

    Returns:
        `Converted`.

    Raises:
        FileDiffersError: if the file's outputs differ from the model's.
        ValueError: if the model cannot be converted.
    """
    data, batch_size, error = convert_any_batch(model, cases, names)
    notes = []
    if batch_size:
        cases = one_example(cases)
        notes.append(
            "the file takes one example at a time: PyTorch's exporter cannot convert this model "
            "for batches of any size"
        )
    if weights == "float16":
        data = onnx_files.with_half_weights(data)
        error = verify(runner(data), cases, RUNTIME, _HALF_TOLERANCE)
    return Converted(data, False, batch_size, error, notes)


def trial(model, cases):
    """Returns a file's outputs for each case."""
    run = runner(make(model))
    return [run(case.inputs) for case in cases]


def make(model):
    """Returns the bytes of a file, unverified."""
    return _convert(model, model.inputs[0].shape[0])


def convert_any_batch(model, cases, names=None):
    """Converts for any batch size if possible, otherwise for one example.

    Returns:
        Tuple of the bytes of the file, its fixed batch size or `None`, and its largest difference
        from the model's outputs.
    """
    try:
        data = _convert(model, None, names)
        return data, None, verify(runner(data), cases, RUNTIME)
    except FileDiffersError:
        raise
    except Exception as problem:
        error = problem
    if model.inputs[0].shape[0] is not None:
        raise _failure(error, model) from error
    try:
        data = _convert(model, 1, names)
        return data, 1, verify(runner(data), one_example(cases), RUNTIME)
    except FileDiffersError:
        raise
    except Exception:
        raise _failure(error, model) from error


def _failure(error, model):
    return ValueError(
        f"PyTorch's exporter cannot convert this model to ONNX: {reason(error)}. "
        f"Received: model={model.name}"
    )


def _convert(model, batch_size, names=None):
    import torch

    class Call(torch.nn.Module):
        """The model as a function of flat inputs, with flat outputs."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *inputs):
            structure = keras.tree.pack_sequence_as(input_structure(model), list(inputs))
            return tuple(keras.tree.flatten(self.model(structure, training=False)))

    shapes = [
        [tensor.shape[0] or batch_size or _BATCH]
        + [_UNKNOWN_SIZE if size is None else size for size in tensor.shape[1:]]
        for tensor in model.inputs
    ]
    inputs = tuple(map(keras.ops.convert_to_tensor, random_inputs(model, shapes)))
    dynamic = tuple(_dynamic_sizes(tensor, i, batch_size) for i, tensor in enumerate(model.inputs))
    was_training = model.training
    with (
        _quiet(),
        _comparisons_of_mixed_dtypes(),
        time_distributed.as_batches(),
        onnx_padding.free_sizes(),
        onnx_recurrence.as_loops() as loops,
    ):
        try:
            program = torch.onnx.export(
                Call().eval(),
                inputs,
                dynamo=True,
                verbose=False,
                input_names=[f"input_{i}" for i in range(len(inputs))],
                output_names=[f"result_{i}" for i in range(len(model.outputs))],
                dynamic_shapes=(dynamic,),
            )
            program.optimize()
        finally:
            model.train(was_training)
        proto = onnx_recurrence.inline(program.model_proto, loops)
    onnx_files.rename(proto, *(names or (None, None)))
    return proto.SerializeToString()


def _dynamic_sizes(tensor, index, batch_size):
    """Returns the free axes of an input, in the form that PyTorch's exporter takes."""
    import torch

    sizes = {}
    for axis, size in enumerate(tensor.shape):
        if size is None and not (axis == 0 and batch_size):
            sizes[axis] = torch.export.Dim("batch" if axis == 0 else f"size_{index}_{axis}")
    return sizes


@contextlib.contextmanager
def _comparisons_of_mixed_dtypes():
    """Makes Keras call comparisons by the names under which the exporter casts their arguments."""
    import torch

    names = {"greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le"}
    as_in_torch = {name: getattr(torch, name) for name in names}
    for name, other in names.items():
        setattr(torch, name, getattr(torch, other))
    try:
        yield
    finally:
        for name, function in as_in_torch.items():
            setattr(torch, name, function)


@contextlib.contextmanager
def _quiet():
    """Hides the exporter's progress output and warnings about its internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def runner(data, num_threads=0):
    """Returns the file as a function of a list of arrays, in the order of the model's inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads  # 0 means one per core
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))
