"""How far the difference of two detectors on one set may be chance: a paired bootstrap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rdlite.errors import OptionError
from rdlite.evaluate.matches import IOUS, Matches, average_precision
from rdlite.evaluate.result import EvalResult, or_none
from rdlite.evaluate.sources import Progress
from rdlite.options import check_count

RESAMPLES: Final = 1000
FEWEST_IMAGES: Final = 6
"""Fewest images with objects that an interval is given for.

Were it as likely that an image speaks for the one as for the other, all of five would speak for
the same one in 1 of 16 cases, all of six in 1 of 32 (the sign test); no draw shows another.
"""

_LEVEL: Final = (2.5, 97.5)  # percentiles: 95 % of the resamples lie between
_CELLS: Final = 4_000_000  # numbers in one array at a time


class Difference(NamedTuple):
    """By how much the second is better than the first.

    Attributes:
        value: Difference of the two, positive where the second is better; NaN where there is
            nothing to measure.
        low: Lower end of the 95 % interval; NaN where too few images have objects.
        high: Its upper end.
    """

    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        value, low, high = (100 * one for one in self)
        if math.isnan(low):
            return f"{value:+.1f} [?]"
        return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


@dataclass(frozen=True, slots=True)
class Differences:
    """The differences of two detectors.

    Attributes:
        ap: Of AP.
        ap50: Of AP50.
        per_class: Of AP by the name of the class.
        resamples: How many sets of images were drawn.
    """

    ap: Difference
    ap50: Difference
    per_class: Mapping[str, Difference]
    resamples: int

    def verdict(self) -> str:
        """Say in words whether AP differs by more than chance."""
        if math.isnan(self.ap.value):
            return "there is no AP to compare"
        if math.isnan(self.ap.low):
            return f"fewer than {FEWEST_IMAGES} images have objects: too few to tell"
        if not self.ap.sure:
            return "the difference of AP may be chance: its interval has 0 in it"
        return f"AP is {'higher' if self.ap.value > 0 else 'lower'} by more than chance"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; NaN becomes None."""
        return {
            "ap": _values(self.ap),
            "ap50": _values(self.ap50),
            "per_class": {name: _values(one) for name, one in self.per_class.items()},
            "resamples": self.resamples,
            "verdict": self.verdict(),
        }


def compare_results(
    first: EvalResult,
    second: EvalResult,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Differences:
    """Say by how much the second is better, and how far that may be chance.

    As many images as the set has are drawn from it with replacement, again and again, and both
    detectors are measured on each draw: a paired bootstrap with percentile intervals (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). It says what other images of
    the same kind might have given; it knows nothing of images of another kind. The boxes are
    matched once: an image's matches do not depend on the others.

    Args:
        first: Of one call of `evaluate_all`, like `second`: on the same images and classes.
        second: See `first`.
        resamples: How many draws.
        seed: Of the generator.
        progress: Called with (draws done, draws in all).

    Raises:
        OptionError: They are not of one call of `evaluate_all`, or `resamples` is not positive.
    """
    check_count("resamples", resamples)
    if list(first.per_class) != list(second.per_class) or not _comparable(first, second):
        raise OptionError("the results are not of one call of evaluate_all; make them by one")
    whole = np.ones((1, first.images), np.int64)
    point = _difference(first, second, whole)[0]
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, *point.shape))
    done = 0
    for weights in _draws(rng, first.images, resamples, _batch(first, second)):
        drawn[done : done + len(weights)] = _difference(first, second, weights)
        done += len(weights)
        if progress is not None:
            progress(done, resamples)
    there = np.stack([one.objects > 0 for one in first.matches])
    any_class = np.full(2, there.any(axis=0).sum())
    ap, ap50 = _intervals(_over_classes(point[np.newaxis])[0], _over_classes(drawn), any_class)
    each = _intervals(point.mean(axis=-1), drawn.mean(axis=-1), there.sum(axis=1))
    return Differences(ap, ap50, dict(zip(first.per_class, each, strict=True)), resamples)


def _comparable(first: EvalResult, second: EvalResult) -> bool:
    pairs = zip(first.matches, second.matches, strict=True)
    return all(
        len(one.right) == len(other.right) == len(IOUS)
        and np.array_equal(one.objects, other.objects)
        for one, other in pairs
    )


def _batch(first: EvalResult, second: EvalResult) -> int:
    """How many draws fit into memory at a time."""
    boxes = max(len(one.score) for one in (*first.matches, *second.matches))
    return max(1, _CELLS // max(boxes, first.images))


def _draws(
    rng: np.random.Generator, images: int, resamples: int, batch: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield how often each image was drawn, int64 (up to `batch`, images)."""
    for begin in range(0, resamples, batch):
        size = min(batch, resamples - begin)
        yield rng.multinomial(images, np.full(images, 1 / images), size=size)


def _difference(
    first: EvalResult, second: EvalResult, weights: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return what the second has more: (draws, classes, IoUs)."""
    return _ap(second.matches, weights) - _ap(first.matches, weights)


def _ap(matches: tuple[Matches, ...], weights: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.stack([average_precision(one, weights) for one in matches], axis=1)


def _over_classes(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the means over the classes that have objects, of AP and of AP50: (draws, 2)."""
    kept = ~np.isnan(values)
    with np.errstate(invalid="ignore"):  # a draw without any object
        mean = np.where(kept, values, 0).sum(axis=1) / kept.sum(axis=1)
    return np.stack([mean.mean(axis=1), mean[:, 0]], axis=1)


def _intervals(
    point: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64], images: npt.NDArray[np.int64]
) -> list[Difference]:
    """Return a difference for each column of the draws, of objects in so many `images`."""
    return [
        Difference(float(value), *_interval(column) if count >= FEWEST_IMAGES else _UNKNOWN)
        for value, column, count in zip(point, drawn.T, images, strict=True)
    ]


_UNKNOWN: Final = (math.nan, math.nan)


def _interval(drawn: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends; a draw without any object says nothing."""
    measured = drawn[~np.isnan(drawn)]
    if not measured.size:
        return _UNKNOWN
    low, high = np.percentile(measured, _LEVEL)
    return float(low), float(high)


def _values(one: Difference) -> dict[str, float | None]:
    return {name: or_none(value) for name, value in one._asdict().items()}
