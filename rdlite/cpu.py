"""What this CPU is called, and its instructions that multiply and add int8 numbers."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
_INT8: Final = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
"""Linux's names of dot products of int8: the first three on x86, the last on ARM."""


def int8_instructions() -> tuple[str, ...]:
    """Return the int8 dot products of this CPU, by Linux's names for them.

    With them onnxruntime runs an int8 network faster than its fp32 original. Without them its x86
    kernels add pairs of products in 16 bits, where large ones saturate: what is found may be
    worse. Empty where the CPU has none, and on systems that do not tell.
    """
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return ("asimddp",)  # every Apple chip with macOS has it
    flags = _flags()
    return tuple(name for name in _INT8 if name in flags)


def cpu_name() -> str:
    """Return what this CPU is called, with family and model, as virtual ones share a name."""
    first = dict(reversed(_entries()))
    name = first.get("model name") or platform.processor() or platform.machine()
    if "cpu family" not in first:
        return name
    return f"{name}, family {first['cpu family']} model {first['model']}"


def _flags() -> set[str]:
    """Return what all cores have of what the kernel lets programs use."""
    cores = [set(value.split()) for key, value in _entries() if key in ("flags", "Features")]
    return set.intersection(*cores) if cores else set()


def _entries() -> list[tuple[str, str]]:
    """Return what Linux tells of the cores, one after the other; empty on other systems."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines)
    return [(key.strip(), value.strip()) for key, _, value in pairs]
