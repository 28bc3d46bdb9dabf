"""rdlite: object detection on CPUs, one small package."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from rdlite.errors import (
    ImageError,
    ModelError,
    OptionError,
    RdliteError,
    ResultFileError,
    VideoError,
)

if TYPE_CHECKING:
    from rdlite.detector import Detector
    from rdlite.resultfile import ResultFile, open_results
    from rdlite.results import Detections

    __version__: str

__all__ = [
    "Detections",
    "Detector",
    "ImageError",
    "ModelError",
    "OptionError",
    "RdliteError",
    "ResultFile",
    "ResultFileError",
    "VideoError",
    "__version__",
    "open_results",
]

# From 1.32 on, onnxruntime sends what it is used for to its maker, unless this is set before it is
# loaded. Whoever wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Loaded at first use, so that `import rdlite` does not pay for NumPy.
_LAZY = {
    "Detections": "rdlite.results",
    "Detector": "rdlite.detector",
    "ResultFile": "rdlite.resultfile",
    "open_results": "rdlite.resultfile",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _LAZY:
        raise AttributeError(f"module 'rdlite' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("rdlite")
    except metadata.PackageNotFoundError:
        return "0+not-installed"


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
