"""Which int8 dot products a CPU has, read from what systems tell about it."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from rdlite import cpu

XEON = "processor\t: {n}\nflags\t\t: fpu sse2 avx512_vnni amx_bf16 amx_int8\nbugs\t: \n\n"
LAPTOP = "processor\t: {n}\nflags\t\t: fpu sse2 avx2 avx_vnni\n\n"
OLD = "processor\t: {n}\nflags\t\t: fpu sse2 avx2 fma\n\n"
GRAVITON = "processor\t: {n}\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd40\n\n"
RASPBERRY = "processor\t: {n}\nFeatures\t: fp asimd crc32\n\n"


@pytest.mark.parametrize(
    ("cores", "wanted"),
    [
        ([XEON, XEON], ("avx512_vnni", "amx_int8")),
        ([LAPTOP], ("avx_vnni",)),
        ([OLD], ()),
        ([GRAVITON, GRAVITON], ("asimddp",)),
        ([RASPBERRY], ()),
        ([GRAVITON, RASPBERRY], ()),  # a program may run on any of the cores
        ([], ()),
    ],
)
def test_linux_lists_them_for_each_core(
    cores: list[str], wanted: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("".join(core.format(n=n) for n, core in enumerate(cores)))
    monkeypatch.setattr(cpu, "_CPUINFO", file)
    assert cpu.int8_instructions() == wanted


@pytest.mark.parametrize(
    ("system", "machine", "wanted"),
    [("darwin", "arm64", ("asimddp",)), ("darwin", "x86_64", ()), ("win32", "AMD64", ())],
)
def test_without_linux_only_apples_own_chips_are_known(
    system: str,
    machine: str,
    wanted: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "gone")
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert cpu.int8_instructions() == wanted


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux tells")
def test_this_cpu_is_read_as_the_kernel_names_it() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cores = [line.split() for line in lines if line.startswith(("flags", "Features"))]
    everywhere = [name for name in cpu._INT8 if cores and all(name in core for core in cores)]
    assert cpu.int8_instructions() == tuple(everywhere)
