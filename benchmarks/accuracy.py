"""Accuracy of a pruned network on MNIST, compared with TFMOT and the dense network.

    python -m benchmarks.accuracy --peer-python path/to/tfmot/bin/python [--data mnist.npz]

For each seed, a dense network is trained once. keras-trim, TFMOT and dense training all continue
from its weights, for the same epochs, with the same optimizer, schedule and order of examples. So
the dense network gets as many epochs as the pruned ones.
"""

import argparse
import contextlib
import pathlib
import statistics
import tempfile

from benchmarks._common import (
    OUR_PACKAGES,
    PEER_PACKAGES,
    QUICK_RESULTS,
    RESULTS,
    Worker,
    write_result,
)

TARGETS = (0.8, 0.9, 0.95, "2:4")
# `end_step` is a multiple of `frequency`; otherwise TFMOT would miss its final sparsity.
FULL = {
    "seeds": list(range(10)),
    "dense_epochs": 4,
    "epochs": 4,
    "end_step": 1200,
    "frequency": 100,
}
QUICK = {"seeds": [0], "dense_epochs": 1, "epochs": 1, "end_step": 300, "frequency": 100}


def compare(workers, settings):
    """Returns a dict: target -> library -> the values of all seeds."""
    schedule = {
        "begin_step": 0,
        "end_step": settings["end_step"],
        "frequency": settings["frequency"],
    }
    ours = workers["keras-trim"]
    runs = {"dense": {"dense": []}} | {str(t): {name: [] for name in workers} for t in TARGETS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in settings["seeds"]:
            path = str(pathlib.Path(folder) / f"{seed}.npz")
            ours.call("pretrain", seed=seed, epochs=settings["dense_epochs"], path=path)
            common = {"seed": seed, "epochs": settings["epochs"], "path": path}
            runs["dense"]["dense"].append(ours.call("train_on", **common))
            print(f"seed {seed}, dense: {runs['dense']['dense'][-1]}", flush=True)
            for target in TARGETS:
                for name, worker in workers.items():
                    run = worker.call("train_on", target=target, schedule=schedule, **common)
                    runs[str(target)][name].append(run)
                    print(f"seed {seed}, {target}, {name}: {run}", flush=True)
    return {
        target: {name: _summary(results) for name, results in by_name.items()}
        for target, by_name in runs.items()
    }


def _summary(runs):
    accuracies = [run["accuracy"] for run in runs]
    return {
        "mean_accuracy": statistics.mean(accuracies),
        "std_accuracy": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
        "accuracies": accuracies,
        "sparsities": [run["sparsity"] for run in runs],
    }


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", required=True, help="interpreter with TFMOT")
    parser.add_argument("--data", help="path of mnist.npz (default: Keras downloads it)")
    parser.add_argument("--backend", default="jax", help="keras-trim's backend")
    parser.add_argument("--quick", action="store_true", help="tiny settings, for a quick try")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    settings = QUICK if arguments.quick else FULL
    data = arguments.data
    if data is None:
        import keras

        data = keras.utils.get_file(
            "mnist.npz",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
        )
    module = "benchmarks._accuracy_worker"
    with contextlib.ExitStack() as stack:
        workers = {
            "keras-trim": Worker(module, arguments.backend, LIBRARY="keras-trim"),
            "TFMOT": Worker(module, "tensorflow", arguments.peer_python, LIBRARY="TFMOT"),
        }
        for worker in workers.values():
            stack.enter_context(worker)
            worker.call("load_data", path=str(pathlib.Path(data).resolve()))
        versions = {
            name: workers[name].call("package_versions", names=packages)
            for name, packages in (("keras-trim", OUR_PACKAGES), ("TFMOT", PEER_PACKAGES))
        }
        results = compare(workers, settings)
    folder = QUICK_RESULTS if arguments.quick else RESULTS
    write_result(folder, "accuracy", settings | {"backend": arguments.backend}, versions, results)


if __name__ == "__main__":
    main()
