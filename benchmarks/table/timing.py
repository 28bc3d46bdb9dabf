"""Time many models in one run, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.table.macs import total_macs
from benchmarks.table.peak import Peak
from benchmarks.table.rows import original
from benchmarks.table.session import open_session, random_inputs

ROUNDS = 15
SECONDS = 0.05
"""A model's share of a round: it is repeated for as long, but once at least."""


class Timing(NamedTuple):
    """What one model takes; medians over the rounds.

    Attributes:
        ms: Milliseconds of one run.
        ratio: To the reference, which ran just before.
        macs: Multiply-adds, as `useful_macs`.
        gflops: 10^9 operations a second, a multiply-add being two.
        peak_share: Of the peak that was measured just after; 0 to 1.
    """

    ms: float
    ratio: float
    macs: int
    gflops: float
    peak_share: float


def time_models(
    models: Mapping[str, Path | bytes], reference: str, *, rounds: int = ROUNDS
) -> dict[str, Timing]:
    """Time all models in turn, again and again, each on one onnxruntime thread.

    The reference runs before each model and the peak is measured after it.

    Args:
        models: .onnx files or their content by name; names that end in "int8" are compared with
            the peak of int8 dot products, others with that of fp32 multiply-adds. Beside each
            "NAME-int8" there must be its original, "NAME".
        reference: Name of the model that ratios are to.
        rounds: How often every model has its turn.

    Returns:
        The timings by name.
    """
    macs = useful_macs(models)
    runners = {name: _Runner(path) for name, path in models.items()}
    peak = Peak()
    samples: dict[str, list[tuple[float, float, float]]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, runner in runners.items():
            base, own = runners[reference].seconds(), runner.seconds()
            most = peak.int8() if name.endswith("int8") else peak.fma()
            samples[name].append((own, own / base, 2e-9 * macs[name] / own / most))
    found = {}
    for name, values in samples.items():
        seconds, ratio, share = map(statistics.median, zip(*values, strict=True))
        found[name] = Timing(1e3 * seconds, ratio, macs[name], 2e-9 * macs[name] / seconds, share)
    return found


def useful_macs(models: Mapping[str, Path | bytes]) -> dict[str, int]:
    """Multiply-adds by name; of "NAME-int8" those of "NAME".

    An int8 model has more of its own: `train.quantize` pads narrow layers with zeros.
    """
    return {name: total_macs(models[original(name)]) for name in models}


class _Runner:
    """A model with an input, run until its share of a round is over."""

    def __init__(self, model: Path | bytes) -> None:
        self._session = open_session(model)
        self._inputs: dict[str, Any] = random_inputs(self._session)
        self._once()

    def seconds(self) -> float:
        """Median of the runs; one before them fills the caches."""
        times = [self._once() for _ in range(2)][1:]
        while sum(times) < SECONDS:
            times.append(self._once())
        return statistics.median(times)

    def _once(self) -> float:
        start = perf_counter()
        self._session.run(None, self._inputs)
        return perf_counter() - start
