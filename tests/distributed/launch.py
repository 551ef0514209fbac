"""Starts the processes that the tests in this folder check."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

from xla_flags import COMPILE_SOON

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKERS = pathlib.Path(__file__).parent / "workers"
SECONDS = 400  # allows for a busy machine; a process that waits for another is stopped then


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(script, *arguments, processes=1, backend, **environment):
    """Runs a script, once or as several processes that talk to each other.

    Args:
        script: Path.
        *arguments: Strings passed to all; `{rank}` and `{port}` in them are filled in.
        processes: Integer. The number of processes.
        backend: String. Value of `KERAS_BACKEND`.
        **environment: More variables, filled in likewise.

    Returns:
        List of strings: the output of each process.
    """
    port = free_port()
    running = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for rank in range(processes):
                names = {"rank": rank, "port": port, "folder": folder}
                variables = {
                    "KERAS_BACKEND": backend,
                    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                    "OMP_NUM_THREADS": "1",
                    "TF_CPP_MIN_LOG_LEVEL": "3",
                    "JAX_PLATFORMS": "cpu",
                    **{k: v.format(**names) for k, v in environment.items()},
                }
                variables["XLA_FLAGS"] = f"{COMPILE_SOON} {variables.get('XLA_FLAGS', '')}"
                running.append(
                    subprocess.Popen(
                        [sys.executable, script, *(a.format(**names) for a in arguments)],
                        env=os.environ | variables,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        text=True,
                        cwd=folder,
                    )
                )
            outputs = []
            for process in running:
                output, errors = process.communicate(timeout=SECONDS)
                assert process.returncode == 0, f"{output}\n{errors}"
                outputs.append(output)
            return outputs
        finally:
            for process in running:
                process.kill()
                process.communicate()


def check(worker, *arguments, **options):
    """Runs the checks of a worker. Returns a dict: check -> traceback, or an empty string."""
    outputs = start(WORKERS / f"{worker}.py", *arguments, **options)
    results = {}
    for rank, output in enumerate(outputs):
        for name, error in json.loads(output.splitlines()[-1]).items():
            results[name] = results.get(name, "") + (f"process {rank}: {error}" if error else "")
    return results
