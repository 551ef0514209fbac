"""Lowers the candidates for a layer, and keeps the one that a tuner finds to be the fastest."""

from keras_trim.inference.lowering.tuner import evict_caches
from keras_trim.inference.program.builder import Builder

_MOST_BYTES = 1 << 28  # of the weights of candidates that are measured at a time


def select(builder, candidates, lower, workload, x, is_repeated=False):
    """Appends the instructions of the fastest candidate.

    Args:
        builder: `Builder`.
        candidates: List of strings or other data whose `repr` tells them apart.
        lower: Function `(candidate, builder)` that appends its instructions.
        workload: Tuple. What layers have in common that are measured once for all of them, as
            `Tuner.known` has it.
        x: `Tensor`, the input of the layer.
        is_repeated: Boolean, as of `Tuner.benchmark`.

    Returns:
        Pair: the candidate, and what `lower` returned for it.
    """
    tuner = builder.tuner
    candidates = tuner.admit(workload, list(candidates))
    workload = (*workload, builder.num_threads, *["repeated"] * is_repeated)
    fastest = tuner.known(workload, candidates)
    if fastest is None:
        try:
            fastest = _measured(builder, candidates, lower, x, is_repeated)
            tuner.note(workload, candidates, fastest)
        except ValueError:  # not all of them fit into the memory that is allowed
            fastest = candidates[0]
    return fastest, lower(fastest, builder)


def _measured(builder, candidates, lower, x, is_repeated):
    """The fastest candidate: of the first, as many as may take memory at once, then of that and the
    others.
    """
    tuner, left = builder.tuner, list(candidates)
    while len(left) > 1:
        trial = Builder(builder.num_threads, tuner, most_floats=tuner.most_floats)
        ends = evict_caches(trial, x)
        for candidate in left:
            if len(ends) > 3 and trial.num_bytes > _MOST_BYTES:
                break
            trial.forget_copies()  # each candidate makes its own
            lower(candidate, trial)
            ends.append(trial.num_instructions)
        program = trial.finish([], [])
        times = tuner.benchmark(program, ends, builder.num_threads, is_repeated)
        left = [left[times.index(min(times))], *left[len(times) :]]
    return left[0]
