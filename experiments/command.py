"""The command line shared by all experiments."""

import argparse
import ctypes
import os
import pathlib
import sys

# This must be set before anything imports a backend.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HERE = pathlib.Path(__file__).parent
QUICK = HERE.parent / "build" / "experiments"


def parser(doc, **arguments):
    """Returns an argument parser with the options that all experiments share.

    Args:
        doc: String. The description in the help text.
        **arguments: Values for arguments that are not on the command line.
    """
    result = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--data", required=True, help="data file or folder; see README.md")
    result.add_argument("--seeds", type=int, default=3, help="number of seeds, starting from 0")
    result.add_argument("--no-resume", action="store_true", help="delete checkpoints and results")
    result.add_argument("--quick", action="store_true", help="tiny sizes, for a quick try")
    result.add_argument(
        "--work",
        type=pathlib.Path,
        default=HERE.parent / "build" / "experiments",
        help="folder for checkpoints and exported files",
    )
    result.add_argument("--results", type=pathlib.Path, help="folder for the results (JSON Lines)")
    result.add_argument("--peer-python", help="interpreter with TFMOT; adds its rows")
    result.add_argument("--only", help="rows to run, such as dense,0.8,2:4 (default: all)")
    result.add_argument("--measure", action="store_true", help="time the exported files")
    result.set_defaults(**arguments)
    return result


def target_of(name):
    """Returns `None` for "dense", a string for a pattern like "2:4", else the sparsity."""
    if name == "dense":
        return None
    return name if ":" in name else float(name)


def keep_memory():
    """Keeps freed memory in the process. Does nothing where the C library is not glibc.

    By default, glibc returns the memory of large tensors to the system and maps it again at the
    next step. With TensorFlow, that took 40 % of the training time of MobileNetV2.
    """
    if not sys.platform.startswith("linux"):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl does not have it
    if set_option is not None:
        trim_threshold, mmap_max, arena_max = -1, -4, -8  # from malloc.h
        set_option(trim_threshold, 2**31 - 1)
        set_option(mmap_max, 0)
        set_option(arena_max, 1)


def run(arguments, make_task):
    """Runs the missing rows of a task, or times its exported files.

    Args:
        arguments: The parsed command line.
        make_task: Function that takes `arguments` and returns a `Task`.

    Returns:
        The `Records` of the task.
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
