"""The most that one core can multiply and add: `peak.c`, compiled here for this machine."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

SOURCE = Path(__file__).with_name("peak.c")
FLAGS = ("-O2", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC")
SECONDS = 0.01
"""Length of one measurement: many scheduler ticks would let others in, fewer are mostly timer."""


class Peak:
    """The two kernels of `peak.c`.

    Raises:
        RuntimeError: There is no C compiler, or it fails.
    """

    def __init__(self) -> None:
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
        if compiler is None:
            raise RuntimeError("the peak needs a C compiler (cc, gcc or clang); none is in PATH")
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "peak.so"
            done = subprocess.run(
                [compiler, *FLAGS, str(SOURCE), "-o", str(library)], capture_output=True, text=True
            )
            if done.returncode:
                raise RuntimeError(f"{compiler} cannot compile {SOURCE}: {done.stderr}")
            kernels = ctypes.CDLL(str(library))
        self._fma = _rate(kernels.fma_operations)
        self._int8 = _rate(kernels.int8_operations)

    def fma(self) -> float:
        """GFLOP/s of float32 fused multiply-adds now, on the core that this runs on."""
        return self._fma()

    def int8(self) -> float:
        """GOP/s of int8 dot products; 0 on a CPU without an instruction for them."""
        return self._int8()


def _rate(kernel: Callable[[int], float]) -> Callable[[], float]:
    """A function that measures a kernel for about `SECONDS` and gives 10^9 operations a second."""
    kernel.argtypes, kernel.restype = [ctypes.c_int64], ctypes.c_double  # type: ignore[attr-defined]

    def measure(rounds: int) -> tuple[float, float]:
        start = perf_counter()
        operations = kernel(rounds)
        return operations, perf_counter() - start

    rounds = 1000
    while measure(rounds)[1] < SECONDS / 4 and kernel(1):
        rounds *= 2

    def rate() -> float:
        operations, seconds = measure(4 * rounds)
        return operations / seconds / 1e9

    return rate


if __name__ == "__main__":
    peak = Peak()
    for _ in range(5):
        print(f"fp32 FMA {peak.fma():.1f} GFLOP/s, int8 dot products {peak.int8():.1f} GOP/s")
