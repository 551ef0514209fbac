"""Reads and restores the states of a process's random number generators, as JSON types."""

import base64
import random
import sys

import numpy as np
from keras import ops
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, global_seed_generator


def read(generators=()):
    """Reads the state of each generator that training may draw from.

    These are the global generators of Python, NumPy and, if it is loaded, PyTorch. JAX has none.
    The generators of layers and of `keras.random` on TensorFlow are variables.

    Args:
        generators: List of additional `torch.Generator` objects.

    Returns:
        Dict of JSON types.
    """
    version, words, gauss = random.getstate()
    state = {
        "python": [version, _encode(np.array(words, "uint32")), gauss],
        "numpy": _encode_tree(np.random.get_state(legacy=False)),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        state["torch"] = _encode(torch.get_rng_state().numpy())
        if torch.cuda.is_initialized():
            state["cuda"] = [_encode(each.numpy()) for each in torch.cuda.get_rng_state_all()]
        state["generators"] = [_encode(each.get_state().numpy()) for each in generators]
    return state


def write(state, generators=()):
    """Restores the generators to a state that `read` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(_decode(words).tolist()), gauss))
    np.random.set_state(_decode_tree(state["numpy"]))
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if "torch" in state:
        torch.set_rng_state(torch.from_numpy(_decode(state["torch"])))
    if len(state.get("cuda", [])) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all([torch.from_numpy(_decode(each)) for each in state["cuda"]])
    for generator, each in zip(generators, state.get("generators", []), strict=False):
        generator.set_state(torch.from_numpy(_decode(each)))


def read_global_seed():
    """Returns the state of Keras's global `SeedGenerator` as a list of integers.

    Returns `None` if it does not exist yet. Creating it here would draw from Python's generator.
    """
    generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    return None if generator is None else ops.convert_to_numpy(generator.state.value).tolist()


def write_global_seed(state):
    """Restores the global `SeedGenerator` to a state that `read_global_seed` returned."""
    if state is None:
        global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)
        return
    variable = global_seed_generator().state
    variable.assign(np.array(state, variable.dtype))


def _encode(array):
    data = np.ascontiguousarray(array)
    return {"dtype": str(data.dtype), "data": base64.b64encode(data.tobytes()).decode()}


def _decode(encoded):
    data = base64.b64decode(encoded["data"])
    return np.frombuffer(data, encoded["dtype"]).copy()


def _encode_tree(value):
    if isinstance(value, dict):
        return {key: _encode_tree(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return {"array": _encode(value)}
    return value.item() if isinstance(value, np.generic) else value


def _decode_tree(value):
    if not isinstance(value, dict):
        return value
    if set(value) == {"array"}:
        return _decode(value["array"])
    return {key: _decode_tree(each) for key, each in value.items()}
