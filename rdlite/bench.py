"""How long one picture takes on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from rdlite.detector import Detector
from rdlite.options import check_count

STAGES = ("preprocess", "inference", "postprocess")


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Milliseconds per picture.

    Attributes:
        runs: Pictures measured.
        size: (width, height) of the picture, pixels.
        median: Median of each stage and of `whole`, the entire call.
        p90: Ninth decile of the same.
    """

    runs: int
    size: tuple[int, int]
    median: Mapping[str, float]
    p90: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, milliseconds to the microsecond."""
        return {
            "runs": self.runs,
            "width": self.size[0],
            "height": self.size[1],
            "median_ms": {stage: round(ms, 3) for stage, ms in self.median.items()},
            "p90_ms": {stage: round(ms, 3) for stage, ms in self.p90.items()},
        }


def synthetic_image(width: int = 1280, height: int = 720) -> npt.NDArray[np.uint8]:
    """Return a picture of smooth noise, uint8 `(H, W, 3)` BGR, always the same."""
    import cv2

    coarse = np.random.default_rng(0).integers(0, 256, (18, 32, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), np.uint8)


def bench(
    detector: Detector, image: npt.NDArray[np.uint8], *, runs: int = 100, warmup: int = 10
) -> BenchResult:
    """Time a detector on one picture, over and over.

    Args:
        detector: The detector, with the options to be measured.
        image: uint8 `(H, W, 3)` BGR.
        runs: Pictures measured.
        warmup: Pictures before that, not measured.

    Raises:
        OptionError: `runs` is not a positive whole number.
    """
    check_count("runs", runs)
    for _ in range(warmup):
        detector(image)
    times: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "whole")}
    for _ in range(runs):
        start = perf_counter()
        speed = detector(image).speed
        times["whole"].append((perf_counter() - start) * 1e3)
        for stage in STAGES:
            times[stage].append(speed[stage])
    return BenchResult(
        runs,
        (image.shape[1], image.shape[0]),
        {stage: float(np.median(values)) for stage, values in times.items()},
        {stage: float(np.percentile(values, 90)) for stage, values in times.items()},
    )
