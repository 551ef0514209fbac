"""Checks arguments. Errors name the argument and what to write instead."""

import difflib
import functools
import inspect
import numbers
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

_MAX_LENGTH = 120
_READERS = {
    ".keras": "keras.models.load_model",
    ".h5": "keras.models.load_model",
    ".hdf5": "keras.models.load_model",
    ".ktrim": "keras_trim.load",
    ".engine": "keras_trim.inference.Engine.load",
}
_F = TypeVar("_F", bound=Callable[..., Any])


def described(value: object) -> str:
    """Describes a value in a few words, however large it is.

    Args:
        value: Anything.

    Returns:
        String such as `"'model.keras'"`, `"an array of shape (256, 20)"`, `"the class Adam"`.
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if getattr(value, "shape", ()) != () and hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)}, {value.dtype}"
    keras = sys.modules.get("keras")  # may be missing where only engines run
    if keras is not None and isinstance(value, keras.layers.Layer):
        return f"{value.name}, a {type(value).__name__}"
    text = " ".join(repr(value).split())
    if len(text) <= _MAX_LENGTH:
        return text
    return f"a {type(value).__name__}, {text[: _MAX_LENGTH // 2]}..."


def counted(count: int, text: str) -> str:
    """Puts a number before a text whose words agree with it.

    Args:
        count: Integer.
        text: String with places such as `{weights are|weight is}`: for several, or for one.
    """
    form = 2 if count == 1 else 1
    return f"{count:,} " + re.sub(r"\{([^|{}]*)\|([^|{}]*)\}", lambda match: match[form], text)


def is_integer(value: object) -> bool:
    """Whether a value is an integer of any type; booleans are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def positive_integer(value: Any, name: str) -> int:
    """Returns a positive integer of any type as an `int`.

    Raises:
        ValueError: if it is not one; the message calls it `name`.
    """
    if not is_integer(value) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    return int(value)


def one_of(value: object, choices: Iterable[str | bool | None], name: str) -> None:
    """Raises `ValueError` unless a value is one of several; the message names the closest.

    Args:
        value: The value that was passed.
        choices: Strings, and `None`, `True` or `False` if they are choices.
        name: String. The argument's name.
    """
    choices = list(choices)
    if isinstance(value, str | bool | None) and value in choices:
        return
    strings = [choice for choice in choices if isinstance(choice, str)]
    close = difflib.get_close_matches(str(value).lower(), strings, 1, 0.5)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(
        f"`{name}` must be one of {', '.join(map(repr, choices))}{hint}. "
        f"Received: {name}={described(value)}"
    )


def check_model(
    model: object,
    name: str = "model",
    takes_layers: bool = False,
    must_be_built: bool = True,
) -> None:
    """Raises `ValueError` unless an argument is a Keras model.

    Args:
        model: The value that was passed.
        name: String. The argument's name.
        takes_layers: Bool. Whether a layer is accepted, too.
        must_be_built: Bool. Whether it must have its weights.
    """
    import keras

    kinds = keras.layers.Layer if takes_layers else keras.Model
    if not isinstance(model, kinds):
        wanted = "a Keras model or layer" if takes_layers else "a Keras model"
        raise ValueError(
            f"`{name}` must be {wanted}{_cure(model)}. Received: {name}={described(model)}"
        )
    if not must_be_built or model.built:
        return
    # A model that is never called itself may still have all its weights, in layers that are.
    unbuilt = [each.name for each in model._flatten_layers(include_self=False) if not each.built]
    # States of metrics and of random number generators exist before that.
    if unbuilt or not model.weights:
        which = f", whose layers {', '.join(unbuilt[:4])} are not built" if model.weights else ""
        raise ValueError(
            f"{'Part of the model' if model.weights else 'The model'} has no weights yet: build it "
            "first, by `model.build(input_shape)` or by calling it on a batch. "
            f"Received: {name}={model.name}{which}{' ...' if unbuilt[4:] else ''}"
        )


def _cure(value: object) -> str:
    """Returns what to write instead of a value that is not a model."""
    import keras

    if isinstance(value, (str, os.PathLike)):
        path = pathlib.Path(value)
        reader = _READERS.get(path.suffix.lower(), "keras.models.load_model")
        return f"; read the file first, `model = {reader}({str(path)!r})`"
    if isinstance(value, type):
        return f"; make one of the class, `{value.__name__}(...)`"
    if isinstance(value, keras.layers.Layer):
        return "; put the layer into one, `keras.Sequential([keras.Input(shape), layer])`"
    if isinstance(value, keras.callbacks.History):
        return "; this is what `fit` returned: pass the model that it trained"
    module = type(value).__module__
    if module.startswith(("tf_keras", "tensorflow.python.keras")):
        return " of Keras 3; this one is of `tf_keras`: save it as `.h5` and load that in Keras 3"
    if module.startswith("keras_trim"):
        return f"; pass the model that the {type(value).__name__} was made of"
    if any(each.__module__.startswith("torch.nn") for each in type(value).__mro__):
        return "; wrap a PyTorch module in `keras.layers.TorchModuleWrapper` to make it a layer"
    return ""


def takes_named(function: _F) -> _F:
    """Decorates a function so that calls with wrong argument names are told the right ones."""
    signature = inspect.signature(function)
    is_method = next(iter(signature.parameters), None) in ("self", "cls")
    names = list(signature.parameters)[1 if is_method else 0 :]
    # "PolynomialDecay" for "PolynomialDecay.__init__".
    called = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(_wrong_call(called, names, kwargs, error)) from None
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]


def _wrong_call(called: str, names: list[str], kwargs: dict[str, Any], error: TypeError) -> str:
    takes = f"It takes {', '.join(f'`{name}`' for name in names)}"
    unknown = [name for name in kwargs if name not in names]
    if not unknown:
        return f"`{called}`: {error}. {takes}."
    told = []
    for name in unknown:
        close = difflib.get_close_matches(name, names, 1, 0.5)
        told.append(f"`{name}`" + (f" (did you mean `{close[0]}`?)" if close else ""))
    received = ", ".join(f"{name}={described(kwargs[name])}" for name in unknown)
    told = " and no argument ".join(told)
    return f"`{called}` has no argument {told}. {takes}. Received: {received}"
