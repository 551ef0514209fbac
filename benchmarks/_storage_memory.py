"""Loads one file in its own process and prints its peak memory growth in bytes.

python -m benchmarks._storage_memory load_arrays|load|keras.models.load_model FOLDER
"""

import os
import pathlib
import sys

from benchmarks._memory import OPEN_ALLOCATORS, peak_growth

if __name__ == "__main__":
    if any(os.environ.get(key) != value for key, value in OPEN_ALLOCATORS.items()):
        os.environ |= OPEN_ALLOCATORS  # only read at process start
        os.execv(
            sys.executable, [sys.executable, "-m", "benchmarks._storage_memory", *sys.argv[1:]]
        )
    import keras

    import keras_trim

    what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    suffix = ".keras" if what.startswith("keras.") else ".ktrim"
    read = {
        "load_arrays": keras_trim.load_arrays,
        "load": keras_trim.load,
        "keras.models.load_model": keras.models.load_model,
    }[what]
    read(folder / f"small{suffix}")  # the first load imports and compiles what it needs
    print(peak_growth(lambda: read(folder / f"model{suffix}")))
