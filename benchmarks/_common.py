"""Shared by all benchmarks: worker processes, the machine's description, and result files."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import queue
import statistics
import subprocess
import sys
import threading
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent
_TENSORFLOW = ("tensorflow", "tensorflow-cpu")
BACKENDS = ("jax", "tensorflow", "torch")
OUR_PACKAGES = ("keras-trim", "keras", "jax", "jaxlib", *_TENSORFLOW, "torch", "numpy")
PEER_PACKAGES = ("tensorflow-model-optimization", "tf-keras", *_TENSORFLOW, "numpy")

RESULTS = ROOT / "benchmarks" / "results"
QUICK_RESULTS = ROOT / "build" / "benchmarks"

# A core type or cache size that the environment forces on OpenBLAS would slow NumPy and PyTorch.
_DROPPED_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class Worker:
    """A process that runs commands, one at a time, and sleeps in between.

    Commands and answers are lines of JSON on its standard input and output.

    Args:
        module: String. A module that calls `serve`.
        backend: String. Value of `KERAS_BACKEND`.
        python: Path of the interpreter. Default: the running one.
        core: Integer. The only core that the process may use. Default: all.
        **variables: Strings. Additional environment variables.
    """

    def __init__(self, module, backend, python=None, core=None, **variables):
        environment = {k: v for k, v in os.environ.items() if k not in _DROPPED_VARIABLES}
        environment |= {
            "KERAS_BACKEND": backend,
            "TF_USE_LEGACY_KERAS": "1",  # only the peer reads it
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            "JAX_PLATFORMS": "cpu",
            "OMP_NUM_THREADS": str(count_cores()),
            **variables,
        }
        self._process = subprocess.Popen(
            [str(python or sys.executable), "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            text=True,
        )
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})  # its threads inherit this

    def call(self, command, **arguments):
        """Returns what the worker's function named `command` returns."""
        print(json.dumps({"command": command, **arguments}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"A worker died in '{command}', exit code {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"A worker failed in '{command}':\n{answer['error']}")
        return answer["result"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve(*functions):
    """Runs a worker's main loop, which calls the requested functions by name."""
    commands = {function.__name__: function for function in (*functions, package_versions)}
    # Whatever libraries print goes to standard error, so the answers stay readable.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lines = queue.SimpleQueue()

    def read():
        for line in sys.stdin:
            lines.put(line)
        # The caller is gone, perhaps killed. A worker that continued would disturb the next.
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        arguments = json.loads(lines.get())
        try:
            answer = json.dumps({"result": commands[arguments.pop("command")](**arguments)})
        except Exception:
            answer = json.dumps({"error": traceback.format_exc()})
        print(answer, file=channel, flush=True)


def package_versions(names):
    """Returns a dict: name -> version, for the packages that are installed here."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def count_cores():
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name():
    """Returns the CPU's model name, with the vector extensions that matter."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields.get("flags", "").split()
    vectors = next((name for name in ("avx512f", "avx2") if name in flags), None)
    name = fields.get("model name", platform.machine())
    return f"{name} ({vectors.upper().rstrip('F')})" if vectors else name


def write_result(folder, name, settings, versions, results):
    """Writes `folder/name.json`, including a description of the machine.

    Args:
        folder: `pathlib.Path`.
        name: String.
        settings: Dict. The settings of the run.
        versions: Dict: environment ("keras-trim", "TFMOT") -> dict: package -> version.
        results: Dict or list.
    """
    content = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": count_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "versions": versions,
        "settings": settings,
        "results": results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path}", flush=True)


def median_ratio(numerators, denominators):
    """Returns the median ratio of values that were measured in pairs, a float."""
    pairs = zip(numerators, denominators, strict=True)
    return statistics.median(above / below for above, below in pairs)
