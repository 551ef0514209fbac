"""Test inputs for a file, and the outputs of the user's model for them.

The model runs in the user's own process, on the user's backend. These outputs go to the process
that converts the model, and are the only reference.
"""

import dataclasses
import itertools

import keras
import numpy as np

from keras_trim import batches, model_inputs
from keras_trim.exporters.preparation import left_unchanged, reset_states
from keras_trim.exporters.reasons import reason
from keras_trim.exporters.samples import filler, input_readers, pad, random_inputs

# One example, a prime, and a larger number. Converters trace with 2, since they treat 1 as a
# constant.
_BATCHES = (1, 3, 7)
# Sizes of images and sequences. A layer may reject the first ones, for example if they are smaller
# than its window. Converters trace with 32.
_SIZES = (
    (1, 2, 3, 5, 8, 12, 18, 24),
    (13, 29, 37, 61, 101, 149, 211),
    (40, 48, 64, 96, 128, 192, 256, 331),
)
_MOST_BATCHES = 8  # of the user's data
# Tolerance for low-precision models, relative to the largest output: in a deep network, rounding
# adds up to this much.
_ROUNDING = {"float32": 1e-4, "float16": 0.03, "bfloat16": 0.15}


class MismatchError(ValueError):
    """Outputs differ from the model's."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One batch of inputs and the model's outputs for it.

    Args:
        name: String. Describes the case in error messages.
        inputs: List of arrays, in the order of `model.inputs`.
        outputs: List of arrays, in the order of the model's flat outputs.
    """

    name: str
    inputs: list
    outputs: list


def make_cases(prepared, data=None):
    """Makes test cases: each free size at three values, masked inputs, and the user's data.

    Args:
        prepared: `Prepared`.
        data: Anything that `model.predict` accepts, or `None`.

    Returns:
        List of `Case`.

    Raises:
        ValueError: if the model cannot be called, does not return the same outputs twice, does not
            accept `data`, or has an output that is finite for no inputs, so nothing is compared.
    """
    model = prepared.model
    refuse_text(model.inputs)
    with left_unchanged(prepared.source):
        cases = _given(prepared, data)
        try:
            cases += [*_free_sizes(prepared), *_masked(prepared)]
        except MismatchError:
            raise
        except ValueError:  # the model only accepts special inputs
            if not cases:
                raise
        if _never_finite(cases):  # a logarithm or a root may only take positive numbers
            try:
                cases += _free_sizes(prepared, in_unit=True)
            except MismatchError:
                raise
            except ValueError:
                pass
        _check_finite(prepared, cases, data is not None)
        _check_repeatable(prepared, cases[0])
    return cases


def refuse_text(tensors):
    """Raises `ValueError` if an input takes text, which no other runtime supports."""
    for tensor in tensors:
        if tensor.dtype == "string":
            raise ValueError(
                "Models that take text only run in Keras. Make a model of the layers after those "
                f"that turn text into numbers. Received: input '{tensor.name}' of dtype string"
            )


def call(model, inputs):
    """Calls a model on flat inputs. Returns its outputs as a flat list of NumPy arrays."""
    structure = keras.tree.pack_sequence_as(input_structure(model), list(inputs))
    outputs = model(structure, training=False)
    return [keras.ops.convert_to_numpy(value) for value in keras.tree.flatten(outputs)]


def input_structure(model):
    """Returns the inputs of a model, nested as it expects them."""
    structure = getattr(model, "_inputs_struct", None)
    return model.inputs[0] if structure is None else structure


def read_inputs(prepared, data, name):
    """Yields the flat inputs of each batch of the user's data, in the dtypes of the copy.

    If the model has a fixed batch size, batches of other sizes, such as the last one, are skipped.

    Args:
        prepared: `Prepared`.
        data: What `batches.calls` takes.
        name: String. The name of the user's argument, for error messages.

    Raises:
        ValueError: if the data do not match the model's inputs, or all batches are skipped.
    """
    structure, specs = model_inputs.signature(prepared.source)
    size = specs[0]["shape"][0]
    sizes = set()
    with batches.naming(name):
        for batch in batches.iterate(batches.calls(data, structure), size, name=name):
            inputs = _as_taken(prepared, model_inputs.flatten(batch, structure, specs))
            sizes.add(len(inputs[0]))
            if size in (None, len(inputs[0])):
                yield inputs
        if size is not None and size not in sizes:
            raise ValueError(
                f"`{name}` must hold a batch of {size} examples, the only size that the model "
                f"takes. Received: batches of {', '.join(map(str, sorted(sizes)))}"
            )


def _given(prepared, data):
    if data is None:
        return []
    found = itertools.islice(read_inputs(prepared, data, "verification_data"), _MOST_BATCHES)
    return [
        _answer(prepared, f"batch {number} of the data", inputs)
        for number, inputs in enumerate(found)
    ]


def _as_taken(prepared, inputs):
    """Converts inputs to the dtypes of the converted model. Files need all inputs."""
    names = [name for name, x in zip(prepared.input_names, inputs, strict=True) if x is None]
    if names:
        raise ValueError(
            "Files need all inputs, including those that are optional in Keras. Pass arrays for "
            f"them. Received: None for {', '.join(map(repr, names))}"
        )
    tensors = prepared.model.inputs
    return [x.astype(tensor.dtype) for x, tensor in zip(inputs, tensors, strict=True)]


def _free_sizes(prepared, in_unit=False):
    """Returns a case for each of three sizes, and one with mixed sizes if several are free."""
    tensors = prepared.model.inputs
    free = [
        (i, axis)
        for i, tensor in enumerate(tensors)
        for axis, size in enumerate(tensor.shape)
        if size is None and axis
    ]
    if not free and tensors[0].shape[0] is not None:
        return [_random_case(prepared, "random inputs", tensors[0].shape[0], {}, in_unit)]
    cases, taken = [], []
    for batch, sizes in zip(_BATCHES, _SIZES, strict=True):
        case, size = _first_accepted(prepared, batch, sizes if free else (None,), free, in_unit)
        cases.append(case)
        taken.append(size)
    if len(free) > 1:
        mixed = {place: taken[1 + number % 2] for number, place in enumerate(free)}
        try:
            name = "inputs of several sizes"
            cases.append(_random_case(prepared, name, _BATCHES[1], mixed, in_unit))
        except MismatchError:
            raise
        except Exception:  # these sizes must be equal
            pass
    return cases


def _first_accepted(prepared, batch, sizes, free, in_unit):
    """Returns the case of the first size that Keras accepts, and that size."""
    for size in sizes:
        name = f"batches of {batch}" + (f", size {size} where sizes are free" if free else "")
        try:
            return _random_case(prepared, name, batch, dict.fromkeys(free, size), in_unit), size
        except MismatchError:
            raise
        except Exception as problem:
            error = problem
    raise ValueError(
        f"The model cannot be called on random inputs ({name}): {reason(error)}. If it only "
        "accepts special inputs, pass `verification_data`; if it only accepts certain sizes, use a "
        "`keras.Input` with them. "
        f"Received: model={prepared.source.name}"
    ) from error


def _random_case(prepared, name, batch, sizes, in_unit):
    shapes = [[tensor.shape[0] or batch, *tensor.shape[1:]] for tensor in prepared.model.inputs]
    for (i, axis), size in sizes.items():
        shapes[i][axis] = size
    name += " in [0, 1]" if in_unit else ""
    return _answer(prepared, name, random_inputs(prepared.model, shapes, in_unit))


def _masked(prepared):
    """Returns cases in which masked inputs are padded, once at the end and once at the start."""
    model = prepared.model
    shapes = [[tensor.shape[0] or 3, *tensor.shape[1:]] for tensor in model.inputs]
    fillers = [filler(found) for found in input_readers(model)]
    if not any(value is not None for value in fillers):
        return []
    for shape in shapes:
        shape[1:] = [13 if size is None else size for size in shape[1:]]
    cases = []
    for place in ("behind", "before"):
        arrays = random_inputs(model, shapes)
        for array, value in zip(arrays, fillers, strict=True):
            if value is not None and array.ndim > 1:
                pad(array, value, place)
        try:
            cases.append(_answer(prepared, f"inputs that are padded {place}", arrays))
        except MismatchError:
            raise
        except Exception:  # Keras rejects these sizes; other cases cover other sizes
            pass
    return cases


def _answer(prepared, name, inputs):
    """Returns the case for these inputs."""
    outputs = call(prepared.model, inputs)
    if prepared.is_copy:
        reset_states(prepared.source)
        own = call(prepared.source, inputs)
        difference = largest_difference(outputs, own)
        if difference > _ROUNDING[prepared.precision]:
            what, cure = "from its configuration", "each `get_config` returns all arguments"
            if prepared.precision != "float32":
                what, cure = f"in float32 instead of {prepared.precision}", "no value overflows"
            raise MismatchError(
                f"The model is converted as a copy {what}, which does not give the outputs that "
                f"the model gives: for {name} they differ by {difference:.2g} of the largest. "
                f"Check that {cure}. Received: model={prepared.source.name}"
            )
    return Case(name, inputs, outputs)


def _never_finite(cases):
    """Lists the indices of outputs that have no finite value in any case."""
    return [
        index
        for index, outputs in enumerate(zip(*(case.outputs for case in cases), strict=True))
        if not any(np.isfinite(x.astype("float64")).any() or not x.size for x in outputs)
    ]


def _check_finite(prepared, cases, has_data):
    """Raises `ValueError` for outputs of which no value could be compared."""
    names = [prepared.output_names[index] for index in _never_finite(cases)]
    if names:
        cure = "`verification_data` needs" if has_data else "pass `verification_data` with"
        raise ValueError(
            "A file cannot be compared with the model, whose outputs are NaN or infinite on random "
            f"inputs{' and on the data' if has_data else ''}: {cure} inputs for which they are "
            "finite. If there are none, check the model's weights. "
            f"Received: model={prepared.source.name}, outputs={', '.join(map(repr, names))}"
        )


def has_rows(case):
    """Whether each output of a case has a row per example; a total over the batch has none."""
    return all(np.ndim(x) and len(x) == len(case.inputs[0]) for x in case.outputs)


def _check_repeatable(prepared, case):
    again = call(prepared.model, case.inputs)
    if largest_difference(again, case.outputs) > 1e-3:
        raise MismatchError(
            "The model returns something different each time it is called on the same inputs, so "
            "no file can be compared with it. Export it without layers that are random outside "
            f"training (such as Dropout called with training=True). "
            f"Received: model={prepared.source.name}"
        )


def largest_difference(values, expected):
    """Returns the largest difference of two lists of arrays, relative to the largest expected.

    Returns:
        Float. Infinity if shapes differ, or if a value is finite in only one of them.
    """
    worst = 0.0
    if len(values) != len(expected):
        return float("inf")
    for value, target in zip(values, expected, strict=True):
        value, target = np.asarray(value), np.asarray(target)
        if value.shape != target.shape:
            return float("inf")
        value, target = value.astype("float64"), target.astype("float64")
        finite = np.isfinite(target)
        if (np.isfinite(value) != finite).any():
            return float("inf")
        if finite.any():
            value, target = value[finite], target[finite]
            scale = max(np.abs(target).max(), 1e-6)
            worst = max(worst, np.abs(value - target).max() / scale)
    return float(worst)
