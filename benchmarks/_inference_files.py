"""The files that peers read. They are made on request and kept for the next run."""

import hashlib
import pathlib

from benchmarks._common import Worker

_HERE = pathlib.Path(__file__).parent
# The versions that the files depend on. Files from other versions are not used.
_SOURCES = ("_inference_models.py", "_inference_export.py")
_BACKENDS = {
    "weights": "jax",
    "tflite": "tensorflow",
    "tflite_int8": "tensorflow",
    "onnx": "torch",
    "onnx_int8": "torch",
    "openvino_int8": "torch",
}
# Runtime -> the kind of file it reads.
_KINDS = {
    "LiteRT": "tflite",
    "LiteRT, sparse file": "tflite",
    "LiteRT, int8": "tflite_int8",
    "ONNX Runtime": "onnx",
    "ONNX Runtime, int8": "onnx_int8",
    "OpenVINO": "onnx",
    "OpenVINO, int8": "openvino_int8",
    "DeepSparse": "onnx",
}
_MADE_FROM_ONNX = ("onnx_int8", "openvino_int8")


class Files:
    """A folder with the networks: their weights, and files for LiteRT and ONNX runtimes.

    Args:
        folder: `pathlib.Path`.
    """

    def __init__(self, folder):
        digest = hashlib.sha256(b"".join((_HERE / name).read_bytes() for name in _SOURCES))
        self._folder = folder / digest.hexdigest()[:12]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._workers = {}

    def get(self, runtime, name, sparsity):
        """Returns the path of the file that a runtime reads."""
        if runtime == "keras-trim":
            return self._weights(name, sparsity)
        kind = _KINDS[runtime]
        plain, sparse = (self._folder / f"{name}-{sparsity}{s}.{kind}" for s in ("", "-sparse"))
        if not plain.exists():
            if kind in _MADE_FROM_ONNX:
                arguments = {"source": self.get("ONNX Runtime", name, sparsity)}
            else:
                arguments = {"weights": self._weights(name, sparsity)}
            if kind == "tflite":
                arguments["sparse_path"] = str(sparse)
            self._write(kind, plain, name=name, **arguments)
        return str(sparse if runtime.endswith("sparse file") else plain)

    def _weights(self, name, sparsity):
        path = self._folder / f"{name}-{sparsity}.npz"
        if not path.exists():
            self._write("weights", path, name=name, sparsity=sparsity)
        return str(path)

    def _write(self, kind, path, **arguments):
        print(f"  writing {path.name}", flush=True)
        if kind not in self._workers:
            self._workers[kind] = Worker("benchmarks._inference_export", _BACKENDS[kind])
        partly = path.with_name("partly")
        self._workers[kind].call(f"write_{kind}", path=str(partly), **arguments)
        partly.rename(path)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for worker in self._workers.values():
            worker.__exit__(*error)
