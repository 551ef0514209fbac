"""Lowers the candidates for a layer, and keeps the one that the tuner finds fastest."""

from keras_trim.inference.lowering.tuner import evict_caches
from keras_trim.inference.program.builder import Builder

_MOST_BYTES = 1 << 28  # of weights of the candidates in one benchmark


def select(builder, candidates, lower, workload, x, is_repeated=False):
    """Appends the instructions of the fastest candidate.

    Args:
        builder: `Builder`.
        candidates: List of strings or other data with distinct `repr`.
        lower: Function `(candidate, builder)` that appends the candidate's instructions.
        workload: Tuple. The workload key, as for `Tuner.known`.
        x: `Tensor`, the input of the layer.
        is_repeated: Boolean, as for `Tuner.benchmark`.

    Returns:
        Pair: the candidate, and the result of `lower` for it.
    """
    tuner = builder.tuner
    candidates = tuner.admit(workload, list(candidates))
    workload = (*workload, builder.num_threads, *["repeated"] * is_repeated)
    fastest = tuner.known(workload, candidates)
    if fastest is None:
        try:
            fastest = _measured(builder, candidates, lower, x, is_repeated)
            tuner.note(workload, candidates, fastest)
        except ValueError:  # the candidates do not all fit the memory limit
            fastest = candidates[0]
    return fastest, lower(fastest, builder)


def _measured(builder, candidates, lower, x, is_repeated):
    """Measures candidates and returns the fastest.

    Each benchmark has the fastest so far and as many others as memory allows.
    """
    tuner, left = builder.tuner, list(candidates)
    while len(left) > 1:
        trial = Builder(builder.num_threads, tuner, most_floats=builder.most_floats)
        ends = evict_caches(trial, x)
        for candidate in left:
            if len(ends) > 3 and trial.num_bytes > _MOST_BYTES:
                break
            trial.forget_copies()  # each candidate makes its own copies
            lower(candidate, trial)
            ends.append(trial.num_instructions)
        program = trial.finish([], [])
        times = tuner.benchmark(program, ends, builder.num_threads, is_repeated)
        left = [left[times.index(min(times))], *left[len(times) :]]
    return left[0]
