"""The recipe for containers, without a container engine: an image is made, then runs read-only.

The run stage is a private root, all of it read-only, as another user, without a network and a home.
"""

import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import numbers, randomize

import keras_trim
from keras_trim.inference import Engine, cache_dir, caches

PROGRAM = """
import sys, warnings
sys.modules["keras"] = None  # as in an image that only runs engines
import numpy as np
from numba.core.event import install_recorder
warnings.simplefilter("error", UserWarning)
with install_recorder("numba:compile") as recorder:
    from keras_trim.inference import Engine, cache_info
    engine = Engine.load(sys.argv[1], num_threads=2)
    y = engine.predict(np.load(sys.argv[2]))
import os
info = cache_info()
print(os.getuid(), info.compiled, len(recorder.buffer), info.loaded)
print(y.tobytes().hex())
try:
    open(sys.argv[3], "w")
except OSError as error:
    print(error.strerror)
"""

# `$1` becomes the root of a file system of its own, in which only the network of nobody is.
RUN_STAGE = """
set -e
mount --make-rprivate /
mount --bind / "$1"
mount --rbind /dev "$1/dev"
if [ -n "$2" ]; then  # Python lies in a home that others may not enter
    mount -t tmpfs -o mode=755 tmpfs "$1$2"
    mkdir -p "$1$3"
    mount --bind "$3" "$1$3"
    mount -o remount,bind,ro "$1$3"
    mount -o remount,ro "$1$2"
fi
for place in $4; do
    mount --bind "$place" "$1$place"
    mount -o remount,bind,ro "$1$place"
done
mount -o remount,bind,ro "$1"
shift 4
exec chroot --userspec=4711:4711 "$@"
"""


def _why_not():
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs to be root on Linux, to make a private root"
    probe = subprocess.run(
        ["unshare", "--mount", "--net", "mount", "--make-rprivate", "/"], capture_output=True
    )
    return None if probe.returncode == 0 else f"no namespaces here: {probe.stderr.decode()}"


def test_image_that_was_built_compiles_nothing_when_it_runs(tmp_path, one_backend):
    reason = _why_not()
    if reason:
        pytest.skip(reason)
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(40), keras.layers.Dense(4)])
    x, cache = numbers(40, 12), tmp_path / "cache"
    engine = Engine(randomize(model, 0.8), num_threads=2)
    engine.save(tmp_path / "model.engine")
    np.save(tmp_path / "x.npy", x)
    expected = engine.predict(x)  # compiles what this machine has not
    os.makedirs(cache / caches.environment())
    for path in cache_dir().glob(f"{caches.environment()}/*.kernel"):
        shutil.copy(path, cache / caches.environment())
    variables = {"PATH": os.environ["PATH"], "KERAS_TRIM_CACHE_DIR": str(cache)}
    variables["PYTHONPATH"] = os.path.dirname(os.path.dirname(keras_trim.__file__))
    command = [sys.executable, "-c", PROGRAM, tmp_path / "model.engine", tmp_path / "x.npy"]
    command = [*map(str, command), str(cache / "more")]

    def run(*before):
        result = subprocess.run([*before, *command], env=variables, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout.split("\n")

    build = run()
    assert np.array_equal(np.frombuffer(bytes.fromhex(build[1]), "float32"), expected.ravel())
    (cache / "more").unlink()
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    root = tmp_path / "root"
    root.mkdir()
    home = os.path.expanduser("~")
    is_hidden = sys.base_prefix.startswith(home + "/")
    places = [sys.prefix, variables["PYTHONPATH"], str(tmp_path)]
    counts, output, error = run(
        *("unshare", "--mount", "--net", "sh", "-c", RUN_STAGE, "sh", str(root)),
        *((home, sys.base_prefix) if is_hidden else ("", "")),
        *(" ".join(p for p in places if not p.startswith(home + "/")), str(root)),
    )[:3]
    uid, compiled, events, loaded = counts.split()
    assert uid == "4711"
    assert (compiled, events) == ("0", "0")
    assert int(loaded) > 3
    assert output == build[1]
    assert error in ("Read-only file system", "Permission denied")
