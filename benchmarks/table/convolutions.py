"""How near the convolutions of a model come to the peak of the core they run on."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import NamedTuple

from benchmarks.table.macs import total_macs
from benchmarks.table.peak import Peak
from benchmarks.table.session import profile

OPERATORS = ("Conv", "FusedConv", "QLinearConv", "ConvTranspose", "Gemm", "MatMul", "QGemm")
"""What onnxruntime's profile calls convolutions, alone or with their activation and sum.

Products too: 1x1 convolutions become ones in int8.
"""

TURNS = 20


class Share(NamedTuple):
    """A model's convolutions against the peak.

    Attributes:
        macs: Their multiply-adds.
        seconds: Their time in one run.
        network: Seconds of the whole network.
        peak: GFLOP/s (GOP/s for int8) measured between the runs.
    """

    macs: int
    seconds: float
    network: float
    peak: float

    @property
    def gflops(self) -> float:
        """10^9 operations a second, a multiply-add being two."""
        return 2 * self.macs / self.seconds / 1e9

    @property
    def share(self) -> float:
        """Of the peak, 0 to 1."""
        return self.gflops / self.peak


def convolution_share(
    model: str | Path, original: str | Path, peak: Peak, *, int8: bool = False
) -> Share:
    """Profile a model on one onnxruntime thread, the peak measured between its runs.

    The profiler slows every node a little. So only the convolutions' share of the time is taken
    from it, and applied to the time of the whole network without it, from the same run.

    Args:
        model: An .onnx file.
        original: The file whose multiply-adds count: of an int8 model the fp32 one that it was made
            from, as its own include padding.
        peak: The kernels to compare with.
        int8: Whether the peak is that of int8 dot products.
    """
    rates: list[float] = []
    measure = peak.int8 if int8 else peak.fma
    found = profile(model, TURNS, between=lambda: rates.append(measure()))
    convolutions = sum(t for (operator, _), t in found.nodes.items() if operator in OPERATORS)
    seconds = found.seconds * convolutions / sum(found.nodes.values())
    return Share(total_macs(original), seconds, found.seconds, statistics.median(rates))
