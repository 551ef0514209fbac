"""Reads a million corrupt files in one process. None may crash, hang or take claimed memory.

    python -m benchmarks.fuzz_storage [--count 1000000] [--seed 0] [--mode bytes|structure]
                                      [--resume]

Every file is a real one with random changes (see `_mutations.py`): to its bytes, or to its
contents, with valid checksums (`structure`). It must either be read or raise `FormatError`. The
process may not take more than `HEADROOM` bytes above what a file is allowed to hold, and no file
may take longer than `SECONDS`.
"""

from benchmarks import _fuzz, _mutations

MAX_BYTES = 1 << 24  # the most bytes a file may decode to
HEADROOM = 1 << 26
SECONDS = 10


def main():
    args = _fuzz.parse(__doc__)
    files = _mutations.seed_files()
    for data in files:
        _mutations.read_all(data, MAX_BYTES)
    _fuzz.limit_memory(MAX_BYTES + HEADROOM)

    def make(mode, choice):
        mutation = choice.choice(_mutations.MODES[mode])
        return mutation.__name__.strip("_"), mutation(choice.choice(files), choice)

    def read(data, choice):
        _mutations.read_all(data, MAX_BYTES)
        return "read"

    settings = {"max_bytes": MAX_BYTES, "memory_over_max_bytes": HEADROOM}
    packages = ("keras-trim", "numpy", "zstandard")
    _fuzz.run("fuzz_storage", args, settings, packages, SECONDS, make, read)


if __name__ == "__main__":
    main()
