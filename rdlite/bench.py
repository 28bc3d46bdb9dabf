"""How long one picture takes on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from rdlite.detector import Detector
from rdlite.options import check_count

__all__ = ["BenchResult", "bench"]

STAGES = ("preprocess", "inference", "postprocess", "whole")
"""What is timed: the parts of a call and `whole`, the entire call."""


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Milliseconds per picture of one detector.

    Attributes:
        median: Median of each of `STAGES`.
        p90: Ninth decile of the same.
    """

    median: Mapping[str, float]
    p90: Mapping[str, float]

    @property
    def images_per_second(self) -> float:
        """One picture after the other, at the median."""
        return 1e3 / self.median["whole"]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, milliseconds to the microsecond."""
        return {
            "median_ms": {stage: round(ms, 3) for stage, ms in self.median.items()},
            "p90_ms": {stage: round(ms, 3) for stage, ms in self.p90.items()},
            "images_per_second": round(self.images_per_second, 2),
        }


def synthetic_image(width: int = 1280, height: int = 720) -> npt.NDArray[np.uint8]:
    """Return a picture of smooth noise, uint8 `(H, W, 3)` BGR, always the same."""
    import cv2

    coarse = np.random.default_rng(0).integers(0, 256, (18, 32, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), np.uint8)


def bench(
    detectors: Sequence[Detector],
    image: npt.NDArray[np.uint8],
    *,
    runs: int = 100,
    warmup: int = 10,
) -> list[BenchResult]:
    """Time detectors on one picture, in turns, so that whatever disturbs meets them alike.

    Args:
        detectors: The detectors, with the options to be measured.
        image: uint8 `(H, W, 3)` BGR.
        runs: Calls measured of each.
        warmup: Calls before that, not measured.

    Returns:
        A result for each detector, in their order.

    Raises:
        OptionError: `runs` is not a positive whole number.
    """
    check_count("runs", runs)
    calls = [[_call(one, image) for one in detectors] for _ in range(warmup + runs)]
    times = np.array(calls[warmup:]).transpose(1, 2, 0)
    return [BenchResult(_by_stage(one, 50), _by_stage(one, 90)) for one in times]


def _call(detector: Detector, image: npt.NDArray[np.uint8]) -> list[float]:
    """Return the milliseconds of one call, in the order of `STAGES`."""
    start = perf_counter()
    speed = detector(image).speed
    whole = (perf_counter() - start) * 1e3
    return [*(speed[stage] for stage in STAGES[:-1]), whole]


def _by_stage(times: npt.NDArray[np.float64], percent: int) -> dict[str, float]:
    return dict(zip(STAGES, np.percentile(times, percent, axis=1).tolist(), strict=True))
