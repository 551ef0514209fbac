"""Checks by pyright that the public API is typed: every parameter, result and attribute.

    python tools/check_types.py

What counts as public is what `keras_trim`, `keras_trim.inference` and `keras_trim.plots` export.
"""

import inspect
import json
import os
import pathlib
import subprocess
import sys

import keras_trim
import keras_trim.inference
import keras_trim.plots

ROOT = pathlib.Path(__file__).parents[1]


def public_names():
    """Set of strings: where each public function and class is defined."""
    names = set()
    for module in (keras_trim, keras_trim.inference, keras_trim.plots):
        for name in module.__all__:
            value = inspect.unwrap(getattr(module, name))
            names.add(f"{value.__module__}.{value.__qualname__}")
    return names


def main():
    options = ["--verifytypes", "keras_trim", "--ignoreexternal", "--outputjson"]
    result = subprocess.run(
        [sys.executable, "-m", "pyright", *options, "--pythonpath", sys.executable],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT.parent,  # else pyright looks for an installed package and finds none
        capture_output=True,
        text=True,
        check=False,
    )
    symbols = json.loads(result.stdout)["typeCompleteness"]["symbols"]
    public, seen, problems = public_names(), set(), []
    for symbol in symbols:
        name = symbol["name"]
        owner = next((p for p in public if name == p or name.startswith(f"{p}.")), None)
        if owner is None or any(part.startswith("_") for part in name.split(".")):
            continue
        seen.add(owner)
        for problem in symbol["diagnostics"]:
            # Of Keras's own classes, which have no types, nothing is known.
            if problem["severity"] == "error" and "missing" in problem["message"]:
                place = problem.get("range", {}).get("start", {}).get("line", 0) + 1
                file = os.path.relpath(problem.get("file", ""), ROOT)
                problems.append(f"{file}:{place}: {name}: {problem['message']}")
    print(*sorted(set(problems)), sep="\n")
    print(f"{len(seen)} of {len(public)} public names, {len(set(problems))} without types")
    sys.exit(1 if problems or len(seen) < len(public) else 0)


if __name__ == "__main__":
    main()
