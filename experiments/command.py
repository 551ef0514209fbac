"""The command line that all experiments share."""

import argparse
import ctypes
import os
import pathlib
import sys

# Before anything imports a backend.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HERE = pathlib.Path(__file__).parent
QUICK = HERE.parent / "build" / "experiments"


def parser(doc, **arguments):
    """A parser with the arguments of all experiments; `arguments` are defaults."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data", required=True, help="a folder, or a file of data; see README.md")
    made.add_argument("--seeds", type=int, default=3, help="how many; the first is 0")
    made.add_argument("--no-resume", action="store_true", help="forget checkpoints and results")
    made.add_argument("--quick", action="store_true", help="tiny sizes, to try it out")
    made.add_argument(
        "--work",
        type=pathlib.Path,
        default=HERE.parent / "build" / "experiments",
        help="folder for checkpoints and exported files",
    )
    made.add_argument("--results", type=pathlib.Path, help="folder for the lines of JSON")
    made.add_argument("--peer-python", help="interpreter that has TFMOT, for its rows")
    made.add_argument("--only", help="rows to run, such as dense,0.8,2:4 (default: all)")
    made.add_argument("--measure", action="store_true", help="time the files that there are")
    made.set_defaults(**arguments)
    return made


def target_of(name):
    """`None` for "dense", the pattern for one like "2:4", else the sparsity."""
    if name == "dense":
        return None
    return name if ":" in name else float(name)


def keep_memory():
    """Keeps freed memory in the process (glibc; elsewhere nothing happens).

    Else TensorFlow's large tensors go back to the system and are mapped anew at each step: 40 % of
    the time of training MobileNetV2 was spent on that.
    """
    if not sys.platform.startswith("linux"):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if set_option is not None:
        trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
        set_option(trim_threshold, 2**31 - 1)
        set_option(mmap_max, 0)
        set_option(arena_max, 1)


def run(arguments, make_task):
    """Runs, or times, the rows of a task that are missing.

    Args:
        arguments: What `parser` parsed.
        make_task: Function of `arguments` that returns a `Task`.

    Returns:
        `Records`.
    """
    import shutil

    from experiments.grid import Grid
    from experiments.records import Records

    keep_memory()
    task = make_task(arguments)
    results = arguments.results or (QUICK if arguments.quick else HERE / "results")
    path = results / f"{task.name}.jsonl"
    work = arguments.work / (f"quick-{task.name}" if arguments.quick else task.name)
    if (arguments.no_resume or arguments.quick) and not arguments.measure:
        path.unlink(missing_ok=True)
        shutil.rmtree(work, ignore_errors=True)
    records = Records(path)
    grid = Grid(task, records, work, arguments.peer_python, arguments.data, arguments.quick)
    if arguments.measure:
        grid.measure()
    else:
        only = arguments.only and [target_of(name) for name in arguments.only.split(",")]
        grid.run(range(1 if arguments.quick else arguments.seeds), only)
    return records
