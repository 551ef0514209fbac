"""Measures how far a process's memory grows at its peak, as the kernel sees it (Linux).

The kernel tracks the largest resident size of a process (`VmHWM`); writing 5 to `clear_refs` resets
it to the current size. Allocators that keep freed memory would hide memory that is taken again. So
a measuring process is started with `OPEN_ALLOCATORS`, and first measures a computation of known
size as a control.
"""

import ctypes
import gc
import pathlib

# With these, glibc takes arrays from the kernel and returns them at once. TensorFlow uses no pool
# of its own if oneDNN is off.
OPEN_ALLOCATORS = {"MALLOC_MMAP_THRESHOLD_": "131072", "TF_ENABLE_ONEDNN_OPTS": "0"}


def _status(field):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def peak_growth(function):
    """Returns the peak growth of the resident size in bytes while `function()` ran."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    result = function()
    growth = _status("VmHWM") - before
    del result  # keep it until here, because it is part of the peak
    return growth


def peak_in_weights(update, control, weight_bytes):
    """Measures an update that has run before, and the control.

    Args:
        update: Function to measure.
        control: Function that makes one tensor of `weight_bytes` with the same library.
        weight_bytes: Integer.

    Returns:
        Dict: `grown` and `control`, in units of `weight_bytes`. `control` should be 1.
    """
    control()
    seen = peak_growth(control) / weight_bytes
    return {"grown": peak_growth(update) / weight_bytes, "control": seen}
