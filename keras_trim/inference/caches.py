"""The disk cache of compiled kernels and measured choices, shared between processes.

A file that is missing, damaged, from another version or processor, or writable by others is
ignored. The only cost is the time to make its content again.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import pkgutil
import stat
import sys
import types
import warnings

import llvmlite
import numba
import platformdirs
from numba.core import config
from numba.core.registry import cpu_target

from keras_trim._version import __version__
from keras_trim.atomic import replace_file

_VARIABLE = "KERAS_TRIM_CACHE_DIR"
_MAGIC = b"KTCACHE1"
_MOST_BYTES = 1 << 28
_COMPILED = ("kernels", "runtime.interpreter", "runtime.handover")  # modules that Numba compiles
_COMPILER_OPTIONS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT")


@dataclasses.dataclass
class CacheInfo:
    """How much the engine loaded from its cache, and how much it compiled, in this process.

    Args:
        folder: `pathlib.Path` of the cache, or None if there is none.
        loaded: Integer. Compiled functions loaded from the cache.
        compiled: Integer. Functions compiled.
        problem: String. Why the cache could not be read or written, or None.
    """

    folder: pathlib.Path | None
    loaded: int = 0
    compiled: int = 0
    problem: str | None = None


_info = CacheInfo(None)


def cache_info() -> CacheInfo:
    """How much the engine loaded from its cache, and how much it compiled, in this process.

    If `compiled` stays 0 inside a container, its image has every kernel.

    Returns:
        `CacheInfo`.
    """
    return dataclasses.replace(_info, folder=cache_dir())


def cache_dir() -> pathlib.Path | None:
    """The folder where the engine caches compiled kernels and measured choices.

    The environment variable `KERAS_TRIM_CACHE_DIR` overrides the default, which is in the user's
    cache folder (`~/.cache/keras-trim` on Linux). You can delete the folder at any time.

    Returns:
        `pathlib.Path`, or None if the user has no home directory.
    """
    given = os.environ.get(_VARIABLE)
    if given:
        folder = pathlib.Path(os.path.expanduser(given))
    else:
        folder = platformdirs.user_cache_path("keras-trim", appauthor=False)
    return None if str(folder).startswith("~") else folder.absolute()  # "~": without a home


def read(name):
    """The content of a cache file.

    Args:
        name: String.

    Returns:
        Bytes, or None if the file is missing, damaged, or not to be trusted.
    """
    path = _path(name)
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            distrust = _distrust(status)
            if distrust:
                _warn(f"{path} {distrust}")
                return None
            data = file.read(_MOST_BYTES) if status.st_size <= _MOST_BYTES else b""
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _warn(f"{path} cannot be read ({error.strerror})")
        return None
    head = _head(name)
    if not data.startswith(head):
        return None
    content = data[len(head) + hashlib.sha256().digest_size :]
    checksum = data[len(head) : len(data) - len(content)]
    return content if checksum == hashlib.sha256(content).digest() else None


def write(name, content):
    """Writes a cache file; warns once if it cannot."""
    path = _path(name)
    if path is None:
        _warn("the user has no home")
        return
    try:
        os.makedirs(path.parent, mode=0o755, exist_ok=True)
        with replace_file(path) as file:
            file.write(_head(name) + hashlib.sha256(content).digest() + content)
    except OSError as error:
        _warn(f"{path} cannot be written ({os.strerror(error.errno) if error.errno else error})")


def _path(name):
    folder = cache_dir()
    return None if folder is None else folder / environment() / name


def _head(name):
    """The header of a file. It names the environment and the file, in case of a renamed file."""
    label = f"{environment()}/{name}".encode()
    return _MAGIC + len(label).to_bytes(4, "little") + label


def _distrust(status):
    """Why a file must not be trusted, or None. It holds code, so its author controls the process.

    The package's owner and root are trusted: they could change the program itself.
    """
    if not hasattr(os, "geteuid"):  # Windows
        return None
    if status.st_uid not in (0, os.geteuid(), _owner_of_package()):
        return "belongs to another user"
    if status.st_mode & stat.S_IWOTH:
        return "can be written by anyone"
    return None


@functools.cache
def _owner_of_package():
    path = pathlib.Path(__file__)
    while not path.exists():  # in an archive
        path = path.parent
    return path.stat().st_uid


def _warn(cause):
    """Warns once that every process has to compile and measure again."""
    if _info.problem is None:
        _info.problem = cause
        warnings.warn(
            "The engine cannot keep what it compiles and measures, so each process spends a minute "
            f"on it: {cause}. Set {_VARIABLE} to a folder of yours that is writable, or run the "
            "engine once where the cache is writable, such as in the build of an image; see "
            "docs/inference.md. "
            f"Received: cache_dir={cache_dir()}",
            stacklevel=2,
        )


def count(loaded=0, compiled=0):
    """Counts functions that were loaded or compiled."""
    _info.loaded += loaded
    _info.compiled += compiled


@functools.cache
def environment():
    """The name of the cache folder, made of everything that compiled code depends on."""
    triple, processor, features = cpu_target.target_context.codegen().magic_tuple()
    options = [getattr(config, name, None) for name in _COMPILER_OPTIONS]
    python = f"{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}"
    llvm = ".".join(map(str, llvmlite.binding.llvm_version_info))
    parts = triple, features, options, llvmlite.__version__, sources(*_COMPILED)
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
    versions = f"{__version__}-numba{numba.__version__}-llvm{llvm}-{python}"
    return f"{versions}-{processor}-{digest}"


def sources(*names):
    """Digests of subpackages and modules, whether in a folder, an archive or a frozen program.

    Args:
        names: Strings: a package such as `"kernels"`, subpackages included, or a module such as
            `"runtime.interpreter"`.

    Returns:
        Dictionary, module name -> digest of its source, sorted by name.
    """
    wanted = tuple(f"{__package__}.{name}" for name in names)
    digests = {}

    def visit(paths, prefix):
        for module in pkgutil.iter_modules(paths, prefix):
            is_wanted = any(f"{module.name}.".startswith(f"{name}.") for name in wanted)
            is_around = any(name.startswith(f"{module.name}.") for name in wanted)
            if module.ispkg and (is_wanted or is_around):
                leaf = module.name.rpartition(".")[2]
                visit([os.path.join(path, leaf) for path in paths], f"{module.name}.")
            elif is_wanted and not module.ispkg:
                loader = module.module_finder.find_spec(module.name).loader
                digests[module.name] = _digest_of_module(loader, module.name)

    visit(list(sys.modules[__package__].__path__), f"{__package__}.")
    return dict(sorted(digests.items()))


def _digest_of_module(loader, name):
    source = loader.get_source(name)
    if source is None:  # a program frozen without its sources
        source = repr(_contents(loader.get_code(name)))
    return hashlib.blake2b(source.encode(), digest_size=16).hexdigest()


def _contents(code):
    """The content of a code object, without addresses, line numbers and paths."""
    constants = [
        _contents(value) if isinstance(value, types.CodeType) else _ordered(value)
        for value in code.co_consts
    ]
    return code.co_code, constants, code.co_names, code.co_varnames


def _ordered(constant):
    return sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant
