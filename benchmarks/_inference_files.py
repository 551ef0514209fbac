"""The files that peers read, made when they are asked for and kept for the next run."""

import hashlib
import pathlib

from benchmarks._common import Worker

_HERE = pathlib.Path(__file__).parent
# What the files depend on: those of another version are not used.
_SOURCES = ("_inference_models.py", "_inference_export.py")
_BACKENDS = {"tflite": "tensorflow", "onnx": "torch"}


class Files:
    """A folder with the networks in the formats of LiteRT and ONNX.

    Args:
        folder: `pathlib.Path`.
    """

    def __init__(self, folder):
        digest = hashlib.sha256(b"".join((_HERE / name).read_bytes() for name in _SOURCES))
        self._folder = folder / digest.hexdigest()[:12]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._workers = {}

    def get(self, runtime, name, sparsity):
        """Path of the file that a runtime reads, or None if it reads none."""
        if runtime.startswith("keras-trim"):
            return None
        kind = "tflite" if runtime.startswith("LiteRT") else "onnx"
        plain, sparse = (self._folder / f"{name}-{sparsity}{s}.{kind}" for s in ("", "-sparse"))
        if not plain.exists():
            print(f"  writing {plain.name}", flush=True)
            partly = plain.with_name("partly")
            arguments = {"name": name, "sparsity": sparsity, "path": str(partly)}
            if kind == "tflite":
                arguments["sparse_path"] = str(sparse)
            self._worker(kind).call(f"write_{kind}", **arguments)
            partly.rename(plain)
        return str(sparse if runtime.endswith("sparse file") else plain)

    def _worker(self, kind):
        if kind not in self._workers:
            self._workers[kind] = Worker("benchmarks._inference_export", _BACKENDS[kind])
        return self._workers[kind]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for worker in self._workers.values():
            worker.__exit__(*error)
