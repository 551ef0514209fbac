"""Tables of an engine's kernels and times, layer by layer."""

import dataclasses
import time

import numpy as np

from keras_trim.tables import PrintedTable, Shown


@dataclasses.dataclass(frozen=True)
class EngineRow:
    """One operation of an engine.

    Args:
        layer: String. The path of the Keras layer it comes from.
        operation: String. The class of the operation.
        kernel: String. The kernel chosen for it.
        shape: Tuple of integers. Shape of its output.
        sparsity: Float. Sparsity of its weights, or None if it has none.
        multiply_adds: Integer. Multiply-adds of a dense run.
        kept: Integer. Multiply-adds whose weight is not zero.
        seconds: Float. Time per run.
    """

    layer: str
    operation: str
    kernel: str
    shape: tuple[int, ...]
    sparsity: float | None
    multiply_adds: int
    kept: int
    seconds: float


@dataclasses.dataclass(frozen=True, repr=False)
class EngineSummary(Shown):
    """The operations of an engine; prints as a table.

    Args:
        rows: List of `EngineRow`.
        seconds: Float. The median time of a run.
        num_threads: Integer.
    """

    rows: list[EngineRow]
    seconds: float
    num_threads: int

    @property
    def keras_layers(self) -> list[str]:
        """Names of the layers that run in Keras because the engine has no kernel for them."""
        return [row.layer for row in self.rows if row.kernel == "Keras"]

    def _table(self):
        total = sum(row.seconds for row in self.rows) or 1.0
        rows = [
            [
                row.layer,
                row.operation,
                "x".join(map(str, row.shape)),
                row.kernel,
                "" if row.sparsity is None else f"{row.sparsity:.1%}",
                f"{row.multiply_adds:,}" if row.multiply_adds else "",
                f"{row.kept / row.multiply_adds:.1%}" if row.multiply_adds else "",
                f"{row.seconds * 1e3:.3f}",
                f"{row.seconds / total:.1%}",
            ]
            for row in self.rows
        ]
        columns = ["layer", "operation", "output", "kernel"]
        columns += [">sparsity", ">multiply-adds", ">kept", ">ms", ">share"]
        all_products = sum(row.multiply_adds for row in self.rows)
        kept = sum(row.kept for row in self.rows)
        lines = [
            f"{self.seconds * 1e3:.2f} ms per run on {self.num_threads} "
            f"{'thread' if self.num_threads == 1 else 'threads'}; {kept:,} of {all_products:,} "
            "multiply-adds kept. Times of layers: their share, alone on one thread, of the total."
        ]
        if self.keras_layers:
            names = ", ".join(self.keras_layers)
            lines.append(f"Without a kernel, and slower, as they run in Keras: {names}")
        return PrintedTable(columns, rows, lines)


@dataclasses.dataclass(frozen=True, repr=False)
class BenchmarkResult:
    """Times of runs.

    Args:
        times: Array, float64, (runs,). Seconds.
        batch_size: Integer. Examples per run.
        num_threads: Integer.
    """

    times: np.ndarray
    batch_size: int
    num_threads: int

    @property
    def seconds(self) -> float:
        """Float: the median time of a run."""
        return float(np.median(self.times))

    def __repr__(self) -> str:
        low, high = np.quantile(self.times, [0.05, 0.95])
        return (
            f"{self.seconds * 1e3:.3f} ms per run of {self.batch_size} "
            f"(median of {len(self.times)}; 5 % to 95 %: {low * 1e3:.3f} to {high * 1e3:.3f} ms), "
            f"{self.batch_size / self.seconds:,.1f} examples per second, "
            f"{self.num_threads} {'thread' if self.num_threads == 1 else 'threads'}"
        )


def measure(run, seconds):
    """Returns the seconds of each of several runs, an array, after a warm-up run.

    Args:
        run: Function without arguments.
        seconds: Float. How long to measure; there are five runs at least.
    """
    run()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return np.array(times)


def summarize(graph, runner, times, profile):
    """Makes an `EngineSummary`.

    Args:
        graph: `Graph`.
        runner: `ProgramRunner`.
        times: Array, seconds of each of several runs.
        profile: Dictionary, node -> seconds, from `Executor.profile`.
    """
    program = runner.program
    total = float(np.median(times))
    scale = total / (sum(profile.values()) or 1.0)
    rows = []
    for number, node in enumerate(graph.nodes):
        operation, (input_shape, shape) = node.operation, program.shapes[number]
        kernel = getattr(operation, "kernel", None)
        multiply_adds, kept = operation.multiply_adds(input_shape, shape)
        rows.append(
            EngineRow(
                layer=node.name,
                operation=type(operation).__name__,
                kernel="; ".join(program.labels.get(number, [])),
                shape=shape,
                sparsity=None if kernel is None else 1 - np.count_nonzero(kernel) / kernel.size,
                multiply_adds=multiply_adds,
                kept=kept,
                seconds=profile.get(number, 0.0) * scale,
            )
        )
    return EngineSummary(rows, total, runner.num_threads)
