"""Compiles functions that Python calls, and caches them for later processes.

Numba's own cache needs a folder beside the source or in the user's home, and fails without one. It
tracks one source file only, and trusts whatever it finds.
"""

import functools
import hashlib
import pickle

from numba import njit
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from keras_trim.inference import caches


class KernelCache(NullCache):
    """Caches the compiled code of one function; Numba consults it before compiling.

    Args:
        function: Python function.
    """

    def __init__(self, function):
        module = function.__module__.rpartition(".")[2]
        self._name = f"{module}.{function.__name__}"

    @property
    def cache_path(self):
        return str(caches.cache_dir())

    def load_overload(self, sig, target_context):
        target_context.refresh()
        content = caches.read(self._file(sig))
        if content is None:
            return None
        try:
            result = CompileResult._rebuild(target_context, *pickle.loads(content))
        except Exception:  # this build of Numba cannot read it
            return None
        caches.count(loaded=1)
        return result

    def save_overload(self, sig, data):
        caches.count(compiled=1)
        caches.write(self._file(sig), dumps(data._reduce()))

    def _file(self, signature):
        digest = hashlib.blake2b(repr(signature).encode(), digest_size=8).hexdigest()
        return f"{self._name}-{digest}.kernel"


def compiled(function=None, nogil=True):
    """Compiles a function on its first call, unless an earlier process has cached it.

    Use it for functions that Python calls; functions that these call are compiled with them.

    Args:
        function: Python function, when used as a decorator without arguments.
        nogil: Boolean. Whether to release the GIL, which takes time.
    """
    if function is None:
        return functools.partial(compiled, nogil=nogil)
    dispatcher = njit(nogil=nogil, boundscheck=False)(function)
    dispatcher._cache = KernelCache(function)
    return dispatcher


def inner(function=None, **options):
    """Compiles a function that only compiled functions call, as part of each of them.

    Without the code for calls from Python, which takes a quarter of the time to compile kernels.

    Args:
        function: Python function, when used as a decorator without arguments.
        **options: Other options of `numba.njit`.
    """
    if function is None:
        return functools.partial(inner, **options)
    return njit(
        nogil=True, boundscheck=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options
    )(function)
