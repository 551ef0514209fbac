"""Checks the options of `keras-trim prune` and turns them into arguments of the library."""

import dataclasses
import pathlib

import typer

_BUDGETS = ("zeros", "bytes", "milliseconds")


@dataclasses.dataclass(frozen=True)
class PruneRequest:
    """How much to prune, and how to choose the weights.

    Args:
        sparsity: Float, or `None` with a pattern or a budget.
        block: String such as `"4x4"`, or `None`.
        pooling: String, `"AVG"` or `"MAX"` in any case.
        pattern: String such as `"2:4"`, or `None`.
        method: String or `None`.
        distribution: String.
        budget: String such as `"zeros=0.9"`, or `None`.
        sensitivity: Path of the sensitivity file for a budget, or `None`.

    Raises:
        typer.BadParameter: if options contradict each other, or one is malformed.
    """

    sparsity: float | None
    block: str | None
    pooling: str
    pattern: str | None
    method: str | None
    distribution: str
    budget: str | None
    sensitivity: pathlib.Path | None

    def __post_init__(self):
        self._check_combination()
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            given = self.sparsity
            hint = f"; {given:g} % is {given / 100:g}" if 1 < given < 100 else ""
            raise typer.BadParameter(f"--sparsity must be at least 0 and below 1{hint}")
        if self.pooling.upper() not in ("AVG", "MAX"):
            raise typer.BadParameter("--pooling must be AVG or MAX")
        if min(self._block_size) < 1:
            raise typer.BadParameter("--block must be two integers of at least 1, such as 4x4")
        if self.pattern is not None:
            kept, of = _pair(self.pattern, ":", "--pattern")
            if not 0 < kept < of <= 127:
                raise typer.BadParameter("--pattern N:M needs 0 < N < M <= 127, such as 2:4")
        if self.budget is not None:
            self._parsed_budget()

    def check_files(self, calibration):
        """Raises `typer.BadParameter` if a file is missing.

        Args:
            calibration: Path of the examples, or `None`.
        """
        if self.sensitivity is not None and not self.sensitivity.is_file():
            raise typer.BadParameter(f"--sensitivity: there is no file {self.sensitivity}")
        if calibration is not None:
            return
        if self.distribution == "sensitivity":
            raise typer.BadParameter("--distribution sensitivity needs examples: add --calibration")
        if self.method not in (None, "magnitude"):
            raise typer.BadParameter(f"--method {self.method} needs examples: add --calibration")

    def _check_combination(self):
        if (self.budget is None) != (self.sensitivity is None):
            raise typer.BadParameter("--budget and --sensitivity go together")
        if self.budget is not None and (self.sparsity is not None or self.pattern is not None):
            raise typer.BadParameter("--budget says how many weights are zero: drop the others")
        if self.budget is not None and self.distribution != "uniform":
            raise typer.BadParameter("--budget says where the zeros are: drop --distribution")
        if self.sparsity is None and self.pattern is None and self.budget is None:
            raise typer.BadParameter("give --sparsity, or --pattern")
        if self.pattern is not None and self.block is not None:
            raise typer.BadParameter("give either --block or --pattern: a weight has one pattern")
        if self.pattern is not None and self.sparsity is not None:
            raise typer.BadParameter(
                "--pattern alone says how many weights are zero: drop --sparsity"
            )

    @property
    def _block_size(self):
        return _pair(self.block, "x", "--block") if self.block else (1, 1)

    def _parsed_budget(self):
        kind, _, number = self.budget.partition("=")
        try:
            if kind in _BUDGETS:
                return {kind: float(number)}
        except ValueError:
            pass
        raise typer.BadParameter(
            f"--budget must be like zeros=0.9, bytes=200000 or milliseconds=5, not {self.budget!r}"
        )

    def prune(self, model, data):
        """Prunes a model on data (structures of arrays), or by magnitude if `data` is `None`."""
        import keras_trim

        n_by_m = None
        if self.pattern is not None:
            kept, of = _pair(self.pattern, ":", "--pattern")
            n_by_m = of - kept, of
        keras_trim.prune(
            model,
            self.sparsity,
            block_size=self._block_size,
            block_pooling_type=self.pooling.upper(),
            sparsity_m_by_n=n_by_m,
            calibration_data=data,
            method=self.method,
            distribution=self.distribution if self.budget is None else self._allocation(model),
        )

    def _allocation(self, model):
        import keras_trim

        table, allowed = keras_trim.Sensitivity.load(self.sensitivity), self._parsed_budget()
        if "milliseconds" in allowed:
            allowed["times"] = keras_trim.inference.weight_times(model)
        return keras_trim.budget(table, **allowed)


def _pair(value, separator, option):
    first, found, second = value.partition(separator)
    if not (found and first.isdecimal() and second.isdecimal()):
        raise typer.BadParameter(f"{option} must be like 2{separator}4, not {value!r}")
    return int(first), int(second)
