"""Whatever is the matter with the cache: right answers, and one warning at most."""

import multiprocessing
import os
import pickle
import stat
import subprocess
import sys
import threading
import time
import warnings
import zipfile

import keras
import numpy as np
import pytest
from helpers import numbers, randomize
from numba.core import config
from numba.core.compiler_lock import global_compiler_lock

import keras_trim
from keras_trim.inference import Engine, cache_dir, cache_info, caches
from keras_trim.inference.kernels.compiled import compiled
from keras_trim.inference.planner import Planner
from keras_trim.inference.runtime import forking

HAS_USERS = hasattr(os, "geteuid")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of the cache, with nothing in it yet."""
    monkeypatch.setenv("KERAS_TRIM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(caches, "_info", caches.CacheInfo(None))
    return tmp_path / "cache"


def add(x, y):
    return x + y


def call_in_new_process():
    """Adds 2 and 3 by a function that was not compiled in this process; how it got the code."""
    before = cache_info()
    assert compiled(add)(2, 3) == 5
    after = cache_info()
    return after.loaded - before.loaded, after.compiled - before.compiled


LOADED, COMPILED = (1, 0), (0, 1)


def file_in(folder):
    (path,) = folder.glob("*/*.kernel")
    return path


def test_second_process_compiles_nothing(folder):
    assert call_in_new_process() == COMPILED
    assert call_in_new_process() == LOADED
    assert cache_info().folder == folder
    assert cache_info().problem is None


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data)


def pickle_of_another(path):
    path.write_bytes(pickle.dumps(print))


def rename_another(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b"test_caches.add", b"test_caches.sub"))


@pytest.mark.parametrize("damage", [truncate, empty, flip, pickle_of_another, rename_another])
def test_damaged_files_are_replaced(folder, damage):
    assert call_in_new_process() == COMPILED
    damage(file_in(folder))
    assert call_in_new_process() == COMPILED
    assert call_in_new_process() == LOADED
    assert cache_info().problem is None


def test_content_that_is_no_kernel(folder):
    """With a checksum that is right, as another build of Numba would leave it."""
    assert call_in_new_process() == COMPILED
    path = file_in(folder)
    caches.write(path.name, pickle.dumps((1, 2, 3)))
    assert call_in_new_process() == COMPILED
    assert call_in_new_process() == LOADED


def test_no_flipped_byte_is_taken(folder):
    caches.write("name", b"content")
    (path,) = folder.glob("*/name")
    data = path.read_bytes()
    assert caches.read("name") == b"content"
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert caches.read("name") is None
        path.write_bytes(data[:place])
        assert caches.read("name") is None


def assert_one_warning(cause):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert call_in_new_process() == COMPILED
        assert call_in_new_process() == COMPILED
    (warning,) = caught
    message = str(warning.message)
    assert cause in message
    assert "Set KERAS_TRIM_CACHE_DIR to a folder of yours" in message
    assert cause in cache_info().problem


def test_folder_that_cannot_be_made(folder):
    folder.write_text("a file")
    assert_one_warning("cannot be written (Not a directory)")


def test_full_disk(folder, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert_one_warning("cannot be written (No space left on device)")
    assert not [*folder.glob("*/*")]


def test_user_without_a_home(folder, monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setenv("KERAS_TRIM_CACHE_DIR", "~/x")
    assert cache_dir() is None
    monkeypatch.delenv("KERAS_TRIM_CACHE_DIR")
    monkeypatch.setattr(
        caches.platformdirs, "user_cache_path", lambda *_, **__: caches.pathlib.Path("~/x")
    )
    assert cache_dir() is None
    assert_one_warning("the user has no home")


@pytest.mark.skipif(not HAS_USERS, reason="Windows has no owners of files like these")
def test_files_of_another_user(folder, monkeypatch):
    call_in_new_process()
    monkeypatch.setattr(caches, "_owner_of_package", os.geteuid)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(caches, "_owner_of_package", lambda: 4711)
    status = os.stat(file_in(folder))
    if status.st_uid == 0:  # the administrator's are trusted
        assert caches._distrust(status) is None
        status = os.stat_result((status.st_mode, *status[1:4], 1234, *status[5:]))
    assert caches._distrust(status) == "belongs to another user"


@pytest.mark.skipif(not HAS_USERS, reason="Windows has no permissions like these")
def test_files_that_anyone_can_write(folder):
    call_in_new_process()
    path = file_in(folder)
    path.chmod(path.stat().st_mode | stat.S_IWOTH)
    with pytest.warns(UserWarning, match="can be written by anyone"):
        call_in_new_process()


def test_versions_and_processors_have_folders_of_their_own(folder, monkeypatch):
    def name():
        caches.environment.cache_clear()
        return caches.environment()

    here = name()
    assert here == name()
    for target, attribute, value in (
        (config, "OPT", 0),
        (caches, "__version__", "0.0.0"),
        (caches, "sources", lambda *names: {"a": "module"}),
        (
            type(caches.cpu_target.target_context.codegen()),
            "magic_tuple",
            lambda _: ("a", "b", "c"),
        ),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, attribute, value)
            assert name() != here
    assert here == name()


def test_all_that_is_compiled_is_in_the_key():
    package = caches.pathlib.Path(caches.__file__).parent
    found = caches.sources(*caches._COMPILED)
    for path in package.rglob("*.py"):
        name = ".".join((caches.__package__, *path.relative_to(package).with_suffix("").parts))
        assert name in found or "njit" not in path.read_text()
    assert f"{caches.__package__}.kernels.spmm.micro_kernel" in found
    assert f"{caches.__package__}.lowering.tuner" in caches.sources("lowering")


def test_code_without_source_has_a_digest_too():
    def code(text):
        return caches._contents(compile(text, "<text>", "exec"))

    assert code("x = 1") == code("\n\nx = 1")
    assert code("x = 1") != code("x = 2")
    assert code("def f(): return {1, 2} & a") != code("def f(): return {1, 2} & b")
    assert code("x in {'a', 'b', 'c'}") == code("x in {'c', 'a', 'b'}")


def small_engine():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="relu")])
    return Engine(randomize(model, 0.5), num_threads=2)


def in_fork(function):
    """What a function gives in a process that is forked here; it has some seconds."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if not child:
        try:
            sender.send(function())
        except BaseException as error:
            sender.send(repr(error))
        finally:
            os._exit(0)
    assert receiver.poll(60), "the child hangs"
    answer = receiver.recv()
    os.waitpid(child, 0)
    return answer


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
forks_threads = pytest.mark.filterwarnings("ignore:.*fork:")


@needs_fork
@forks_threads
def test_fork_while_another_thread_plans(monkeypatch):
    engine, x = small_engine(), numbers(3, 8)
    expected = engine(x)
    begun, may_end, parent = threading.Event(), threading.Event(), os.getpid()

    def plan(*args, original=Planner._plan):
        if os.getpid() == parent:
            begun.set()
            may_end.wait()
        return original(*args)

    monkeypatch.setattr(Planner, "_plan", plan)
    thread = threading.Thread(target=lambda: engine(numbers(5, 8)))
    thread.start()
    begun.wait()
    try:
        assert in_fork(lambda: np.array_equal(engine(x), expected)) is True
        assert in_fork(lambda: engine(numbers(5, 8)).shape) == (5, 4)
        assert in_fork(lambda: engine(numbers(7, 8)).shape) == (7, 4)
    finally:
        may_end.set()
        thread.join()


@needs_fork
@forks_threads
def test_fork_while_another_thread_computes():
    engine, x = small_engine(), numbers(3, 8)
    expected, is_over = engine(x), threading.Event()

    def compute():
        while not is_over.is_set():
            engine(x)

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        for _ in range(5):
            assert in_fork(lambda: np.array_equal(engine(x), expected)) is True
            time.sleep(0.01)
    finally:
        is_over.set()
        thread.join()


@needs_fork
@forks_threads
def test_fork_while_another_thread_compiles(folder):
    begun, may_end = threading.Event(), threading.Event()

    def hold():
        with global_compiler_lock:
            begun.set()
            may_end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    try:
        assert "forked while another thread compiled" in in_fork(lambda: compiled(add)(2, 3))
    finally:
        may_end.set()
        thread.join()
    assert in_fork(lambda: compiled(add)(2, 3)) == 5
    assert compiled(add)(2, 3) == 5
    assert not isinstance(global_compiler_lock._lock, forking._HeldForever)


PROGRAM = """
import numpy as np, sys, warnings
sys.modules["keras"] = None  # as where only engines run
sys.path[:0] = sys.argv[2:]
warnings.simplefilter("error", UserWarning)
from keras_trim import inference
y = inference.Engine.load(sys.argv[1], num_threads=1)(np.ones((2, 8), "float32"))
print(inference.__file__, y.shape, inference.cache_info().compiled, sep="\\n")
"""


@pytest.mark.parametrize("way", ["isolated", "archive", "without bytecode"])
def test_ways_to_start_python(way, tmp_path, one_backend):
    """With the kernels that another process has cached on this machine: all find the same."""
    small_engine().save(tmp_path / "small.engine")
    package = os.path.dirname(keras_trim.__file__)
    path, options, variables = os.path.dirname(package), [], {}
    if way == "isolated":
        options = ["-I"]
    elif way == "without bytecode":
        options, variables = ["-B"], {"PYTHONDONTWRITEBYTECODE": "1"}
    else:
        path = str(tmp_path / "package.zip")
        with zipfile.ZipFile(path, "w") as archive:
            for folder, _, names in os.walk(package):
                for name in names:
                    if name.endswith((".py", ".txt")):
                        file = os.path.join(folder, name)
                        archive.write(file, os.path.relpath(file, os.path.dirname(package)))

    def output(options, variables, path):
        run = subprocess.run(
            [sys.executable, *options, "-c", PROGRAM, tmp_path / "small.engine", path],
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout.split("\n")[:3]

    output([], {}, os.path.dirname(package))
    file, shape, count = output(options, variables, path)
    assert file.startswith(path)
    assert (shape, count) == ("(2, 4)", "0")


@pytest.mark.slow
def test_two_processes_at_once(tmp_path, one_backend):
    """They write the same files, each of them whole."""
    code = "\n".join(
        [
            "import sys",
            "from keras_trim.inference import caches",
            "for i in range(50): caches.write('name', sys.argv[1].encode() * 50_000)",
            "assert caches.read('name')[:1] in (b'a', b'b')",
        ]
    )
    variables = os.environ | {"KERAS_TRIM_CACHE_DIR": str(tmp_path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", "-c", code, name], env=variables
        )
        for name in "ab"
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert [path.name for path in tmp_path.glob("*/*")] == ["name"]
