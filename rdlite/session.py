"""A model file, opened: one onnxruntime session that was checked against its own metadata."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rdlite.errors import ModelError
from rdlite.modelfile import OUTPUTS, ModelSpec, Outputs
from rdlite.registry import DEFAULT, check, find
from rdlite.storage.regular import read_regular

MAX_BYTES: Final = 1 << 29
"""Largest model file read, in bytes."""

# Weights stored outside the model file are looked up below this path, where nothing can be:
# without it onnxruntime reads them from the current directory.
_NOWHERE: Final = os.path.join(os.devnull, "refused")

# Sessions inherited through fork. Their threads do not exist in the child, so destroying one
# there can hang or crash; they are kept until the process ends.
_INHERITED: Final[list[Any]] = []


class Session:
    """A loaded network: image in, raw outputs out.

    Safe to use from several threads, and after `fork`: a child process opens the file again.

    Args:
        model: Name of a model or path of a model file; `rdlite.registry.find` tells them apart.
        threads: Threads one `run` may use; 1 keeps it on the calling thread.

    Attributes:
        path: Absolute path of the model file.
        spec: What the file says about itself.
        sha256: Hexadecimal SHA-256 of the file.

    Raises:
        ModelError: No model has this name; or the file is missing, damaged, stores data elsewhere,
            is not an rdlite model or not the one of its name; the text names it and the reason.
    """

    def __init__(self, model: str | Path = DEFAULT, *, threads: int = 1) -> None:
        self.path = find(model).absolute()
        self._threads = threads
        content = _read(self.path)
        self.sha256 = hashlib.sha256(content).hexdigest()
        check(model, self.path, self.sha256)
        self._ort = open_network(content, self.path, threads)
        self._pid = os.getpid()
        metadata = self._ort.get_modelmeta().custom_metadata_map
        self.spec = ModelSpec.from_metadata(metadata, source=str(self.path))
        self._shapes = _output_shapes(self.spec)
        _check_graph(self._ort, self.spec, self._shapes, self.path)

    def run(self, image: npt.NDArray[np.uint8]) -> Outputs:
        """Run the network on one image.

        Args:
            image: uint8 `(1, H, W, 3)`, BGR, H and W as in `spec.input_size`.

        Returns:
            `arm_loc (A, 4)`, `arm_conf (A, 2)`, `odm_loc (A, 4)` and `odm_conf (A, K)`,
            float32: offsets and logits of A anchors, K classes of which 0 is background.

        Raises:
            ModelError: The network cannot run, or returns shapes it did not declare.
        """
        if self._pid != os.getpid():
            self._reopen()
        try:
            outputs = self._ort.run(OUTPUTS, {"image": image})
        except _ort_errors() as error:
            raise ModelError(f"{self.path}: the network failed ({_reason(error)})") from error
        shapes = tuple(output.shape for output in outputs)
        if shapes != self._shapes:
            raise ModelError(
                f"{self.path}: the network returned shapes {shapes}, declared {self._shapes}; "
                "export the model again"
            )
        arm_loc, arm_conf, odm_loc, odm_conf = (output[0] for output in outputs)
        return arm_loc, arm_conf, odm_loc, odm_conf

    def _reopen(self) -> None:
        content = _read(self.path)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ModelError(f"{self.path}: has changed since it was opened; create a new Detector")
        _INHERITED.append(self._ort)
        self._ort = open_network(content, self.path, self._threads)
        self._pid = os.getpid()


def _read(path: Path) -> bytes:
    content = read_regular(path, max_bytes=MAX_BYTES, error=ModelError)
    if not content:
        raise ModelError(f"{path}: is empty; an rdlite model is an .onnx file")
    return content


def open_network(content: bytes, path: Path, threads: int) -> Any:
    """Return the onnxruntime session that `Session` runs, not checked against any metadata.

    Args:
        content: An ONNX file.
        path: Where it came from, for the errors.
        threads: Threads one run may use.

    Raises:
        ModelError: onnxruntime cannot load it, or it keeps data elsewhere.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    for key, value in (
        ("session.intra_op.allow_spinning", "0"),
        ("session.inter_op.allow_spinning", "0"),
        ("session.model_external_initializers_file_folder_path", _NOWHERE),
    ):
        options.add_session_config_entry(key, value)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except _ort_errors() as error:
        raise ModelError(f"{path}: {_load_failure(error)}") from error


def _load_failure(error: Exception) -> str:
    reason = _reason(error)
    kind = type(error).__name__
    if kind == "InvalidProtobuf":
        return "is not an ONNX file, or is truncated; an rdlite model is a whole .onnx file"
    if "external" in reason.lower():
        return f"keeps data outside the model file, which is refused ({reason})"
    return f"onnxruntime cannot load it ({reason})"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _ort_errors() -> tuple[type[Exception], ...]:
    # onnxruntime's errors have no base class of their own, so they are collected by module.
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [item for item in vars(state).values() if isinstance(item, type)]
    return (ValueError, RuntimeError, *(item for item in own if issubclass(item, Exception)))


def _output_shapes(spec: ModelSpec) -> tuple[tuple[int, int, int], ...]:
    anchors = len(spec.anchors)
    columns = (4, 2, 4, len(spec.names) + 1)
    return tuple((1, anchors, width) for width in columns)


def _check_graph(
    ort: Any, spec: ModelSpec, shapes: tuple[tuple[int, int, int], ...], path: Path
) -> None:
    wanted = {"image": ("tensor(uint8)", (1, *spec.input_size, 3))}
    _check_tensors("input", ort.get_inputs(), wanted, path)
    wanted_outputs = {
        name: ("tensor(float)", shape) for name, shape in zip(OUTPUTS, shapes, strict=True)
    }
    _check_tensors("output", ort.get_outputs(), wanted_outputs, path)


def _check_tensors(
    role: str, found: list[Any], wanted: Mapping[str, tuple[str, tuple[int, ...]]], path: Path
) -> None:
    names = sorted(tensor.name for tensor in found)
    if names != sorted(wanted):
        raise ModelError(f"{path}: the {role}s must be named {sorted(wanted)}, got {names}")
    for tensor in found:
        kind, shape = wanted[tensor.name]
        if tensor.type != kind:
            raise ModelError(f"{path}: {role} {tensor.name} must be {kind}, got {tensor.type}")
        if tuple(tensor.shape) != shape:
            raise ModelError(
                f"{path}: {role} {tensor.name} must have shape {shape} to fit the metadata, "
                f"got {tuple(tensor.shape)}"
            )
