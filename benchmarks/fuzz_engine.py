"""Loads and runs corrupt engine files in one process. None may crash, hang or take memory.

    python -m benchmarks.fuzz_engine [--count 1000000] [--seed 0] [--mode bytes|structure]
                                     [--run 100] [--resume]

Every file is `tests/data/version_0_1_0.engine` with random changes (see `_mutations.py` and
`_engine_mutations.py`): to its bytes, or to its graph and weights, with valid checksums
(`structure`). It must either load or raise `FormatError`. One in `--run` of those that load is also
called, which plans it first. The process may not take more than `HEADROOM` bytes above what a file
is allowed to hold, and no file may take longer than `SECONDS`.
"""

import io
import warnings

import numpy as np

from benchmarks import _engine_mutations, _fuzz, _mutations
from benchmarks._common import ROOT
from keras_trim.inference import Engine

MAX_BYTES = 1 << 24
HEADROOM = 1 << 28  # kernels are compiled code, and threads have stacks
SECONDS = 30


def _call(engine, inputs):
    engine._tuner.cache._name = None
    engine._tuner.seconds = 1e-5
    try:
        engine(inputs)
    except ValueError as error:  # the inputs do not fit the mutated file
        if "nput" not in str(error):
            raise
        return "inputs refused"
    return "ran"


def main():
    args = _fuzz.parse(__doc__, run=100)
    data = (ROOT / "tests" / "data" / "version_0_1_0.engine").read_bytes()
    with np.load(ROOT / "tests" / "data" / "version_0_1_0.npz") as arrays:
        inputs = {name: arrays[name] for name in ("image", "tokens")}
    template = _engine_mutations.Template(data)

    def make(mode, choice):
        if mode == "structure":
            return template.mutate(choice)
        mutation = choice.choice(_mutations.MODES[mode])
        return mutation.__name__.strip("_"), mutation(data, choice)

    def read(changed, choice):
        engine = Engine.load(io.BytesIO(changed), num_threads=1, max_bytes=MAX_BYTES)
        return _call(engine, inputs) if choice.randrange(args.run) == 0 else "loaded"

    warnings.simplefilter("ignore")  # numbers may not fit the dtype that they are changed to
    engine = Engine.load(io.BytesIO(data), num_threads=1)
    _call(engine, inputs)
    _fuzz.limit_memory(MAX_BYTES + HEADROOM)
    settings = {
        "max_bytes": MAX_BYTES,
        "memory_over_max_bytes": HEADROOM,
        "one_run_in": args.run,
    }
    packages = ("keras-trim", "numpy", "numba", "zstandard")
    _fuzz.run("fuzz_engine", args, settings, packages, SECONDS, make, read)


if __name__ == "__main__":
    main()
