"""The processor of this machine."""

import os
import pathlib
import platform

_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}


def count_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """Returns the name of the processor, with its vector instructions."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    flags = set((fields.get("flags") or fields.get("Features", "")).split())
    vectors = next((name for flag, name in _VECTORS.items() if flag in flags), None)
    name = fields.get("model name", platform.machine())
    return f"{name} ({vectors})" if vectors else name
