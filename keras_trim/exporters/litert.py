"""Writes LiteRT (TensorFlow Lite) files, with zeros stored sparsely.

TensorFlow's converter makes them, so this runs under the TensorFlow backend. It stores a weight of
rank 2 or 4 sparsely if at least 30 % of it is zero, and inserts a `DENSIFY` operation after it.
Dense kernels with zeros in whole blocks of 4 inputs need no `DENSIFY`: LiteRT multiplies them
sparsely.
"""

import contextlib
import dataclasses
import tempfile
import warnings

import keras
import numpy as np

from keras_trim.exporters import time_distributed
from keras_trim.exporters.calibration import calibrate
from keras_trim.exporters.cases import input_structure
from keras_trim.exporters.reasons import reason
from keras_trim.exporters.verification import TOLERANCE, Converted, one_example, verify

BACKEND = "tensorflow"
RUNTIME = "LiteRT"
PACKAGES = ("ai_edge_litert", "tensorflow")
# The user chose coarser weights, so outputs may change. But nothing may overflow.
_ANY = 1e300


def convert(model, cases, names, weights=None, representative=None):
    """Converts a model under the TensorFlow backend.

    Args:
        model: Built Keras model in float32.
        cases: List of `Case` to verify the file with.
        names: List of strings: the names of the inputs in the file. A model that was loaded in
            another process may have other names than the user's.
        weights: `None` (unchanged), `"float16"` or `"int8"`.
        representative: List of `Case` for activations in int8, or `None`.

    Returns:
        `Converted`.

    Raises:
        FileDiffersError: if the file's outputs differ from the model's.
        ValueError: if the model cannot be converted.
    """
    with _saved(model, names) as (folder, batch_size):
        notes = []
        if batch_size:
            notes.append(
                "the file takes one example at a time: TensorFlow's converter cannot "
                "convert recurrent layers for batches of any size"
            )
            cases = one_example(cases)
        # Verifies in float32 first: a file with exact weights must match the model.
        data = _call_converter(folder, model)
        error = verify(runner(data, names), cases, RUNTIME)
        if weights is not None:
            if representative is None:
                data = _call_converter(folder, model, weights)
            else:
                examples = list(_examples(representative, model))
                data = calibrate(folder, names, examples, model)
            error = verify(runner(data, names), cases, RUNTIME, _ANY)
            if representative is not None:  # random inputs may exceed the ranges that it measured
                error = verify(runner(data, names), representative, RUNTIME, _ANY)
        dense = Converted(data, False, batch_size, error, notes)
        if weights != "int8":
            sparse = _call_converter(folder, model, weights, sparse=True)
            return _sparsest(dense, sparse, names, cases)
        kept = [
            f"'{layer.name}'"
            for layer in model._flatten_layers()
            if isinstance(layer, (keras.layers.Conv3D, keras.layers.Conv3DTranspose))
        ]
        if kept:
            notes.append(
                f"the weights of {', '.join(kept[:3])}{' and others' if kept[3:] else ''} stay in "
                "float32: LiteRT has no three-dimensional convolution with int8 weights"
            )
        # LiteRT 2.3 rejects most files with sparse int8 weights, and runs the others wrongly.
        if representative is None and _has_zeros(model):
            notes.append(
                "int8 weights are stored densely: LiteRT cannot run sparse ones. Above about "
                "75 % zeros weights='float16' makes a smaller file"
            )
        return dense


def trial(model, cases):
    """Returns the outputs of a float32 file for each case."""
    names = [tensor.name for tensor in model.inputs]
    with _saved(model, names) as (folder, batch_size):
        run = runner(_call_converter(folder, model), names)
        return [in_rows(run, case.inputs) if batch_size else run(case.inputs) for case in cases]


def in_rows(run, inputs):
    """Runs a file that takes one example at a time on several."""
    rows = [run([array[i : i + 1] for array in inputs]) for i in range(len(inputs[0]))]
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def _sparsest(dense, sparse, names, cases):
    """Returns the smaller of two files, if its outputs are the same."""
    if len(sparse) >= len(dense.data):  # with few zeros, indices cost more than they save
        return dense
    tolerance = max(TOLERANCE, 1.5 * dense.largest_error)
    try:
        error = verify(runner(sparse, names), cases, RUNTIME, tolerance)
    except ValueError:
        note = (
            "weights are stored densely: LiteRT does not give the same outputs with sparse ones "
            "of this kind (Dense kernels in blocks of 4 inputs with weights='float16' are such a "
            "case). weights=None stores them sparsely"
        )
        return dataclasses.replace(dense, warnings=[*dense.warnings, note])
    return dataclasses.replace(dense, data=sparse, is_sparse=True, largest_error=error)


@contextlib.contextmanager
def _saved(model, names):
    """Yields a folder with TensorFlow's saved model, and the file's fixed batch size or `None`."""
    # Without a fixed batch size, loops of recurrent layers need operations that LiteRT lacks.
    is_recurrent = any(isinstance(layer, keras.layers.RNN) for layer in model._flatten_layers())
    batch_size = 1 if is_recurrent and model.inputs[0].shape[0] is None else None
    with (
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory(prefix="keras_trim_") as folder,
    ):
        warnings.simplefilter("ignore")  # TensorFlow's warnings about its internals
        try:
            with time_distributed.as_batches():
                _save(model, names, folder, batch_size)
        except Exception as error:
            raise _failure(error, model) from error
        yield folder, batch_size


def _save(model, names, folder, batch_size):
    import tensorflow as tf

    def call(*inputs):
        structure = keras.tree.pack_sequence_as(input_structure(model), list(inputs))
        return tuple(keras.tree.flatten(model(structure, training=False)))

    signature = [
        tf.TensorSpec([tensor.shape[0] or batch_size, *tensor.shape[1:]], tensor.dtype, name)
        for tensor, name in zip(model.inputs, names, strict=True)
    ]
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", call, signature)
    archive.write_out(folder, verbose=False)


def _call_converter(folder, model, weights=None, sparse=False):
    import tensorflow as tf

    # Converting a concrete function would leave the variables out of the file.
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = []
    if sparse:
        converter.optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    if weights is not None:
        converter.optimizations.append(tf.lite.Optimize.DEFAULT)
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        return converter.convert()
    except Exception as error:
        raise _failure(error, model) from error


def _examples(cases, model):
    """Yields the inputs of one example at a time."""
    size = model.inputs[0].shape[0] or 1
    for case in cases:
        for first in range(0, len(case.inputs[0]), size):
            yield [array[first : first + size] for array in case.inputs]


def _failure(error, model):
    return ValueError(
        f"TensorFlow's converter cannot convert this model to LiteRT: "
        f"{reason(error, model._flatten_layers())}. Received: model={model.name}"
    )


def runner(data, names, num_threads=1):
    """Returns the file as a function of a list of arrays, for the inputs called `names`."""
    from ai_edge_litert.interpreter import Interpreter

    signature = Interpreter(model_content=data, num_threads=num_threads).get_signature_runner()

    def run(inputs):
        outputs = signature(**dict(zip(names, inputs, strict=True)))
        return [outputs[name].copy() for name in sorted(outputs, key=_output_order)]

    return run


def _output_order(name):
    """Sorts `output_2` before `output_10`."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number)) if number.isdigit() else (name, 0)


def _has_zeros(model):
    """Whether the converter would store some weight sparsely."""
    values = (keras.ops.convert_to_numpy(variable) for variable in model.variables)
    return any(
        value.ndim in (2, 4) and np.count_nonzero(value) <= 0.7 * value.size for value in values
    )
