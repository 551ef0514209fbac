"""How much more memory a process had at its peak than before, as the kernel sees it (Linux).

The kernel keeps the largest resident size of a process (`VmHWM`); writing 5 to `clear_refs` sets it
back to the present one. Allocators that keep what is freed would hide memory that is taken again.
So a process that measures is started with `OPEN_ALLOCATORS`, and measures a computation of known
size as a control first.
"""

import ctypes
import gc
import pathlib

# glibc then takes arrays from the kernel and gives them back at once; TensorFlow uses no pool of
# its own if oneDNN is off.
OPEN_ALLOCATORS = {"MALLOC_MMAP_THRESHOLD_": "131072", "TF_ENABLE_ONEDNN_OPTS": "0"}


def _status(field):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def peak_growth(function):
    """Integer: bytes by which the resident size grew at most while `function()` ran."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    result = function()
    growth = _status("VmHWM") - before
    del result  # until now: it belongs to the peak
    return growth


def peak_in_weights(update, control, weight_bytes):
    """Measures an update that has run before, and the control.

    Args:
        update: Function to measure.
        control: Function that makes one tensor of `weight_bytes`, by the same library.
        weight_bytes: Integer.

    Returns:
        Dict: `grown` and `control`, in units of `weight_bytes`. The latter should be 1.
    """
    control()
    seen = peak_growth(control) / weight_bytes
    return {"grown": peak_growth(update) / weight_bytes, "control": seen}
