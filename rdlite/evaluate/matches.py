"""Which boxes are right, and what follows: F1 by confidence, AP of any choice of images."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

IOUS: Final = np.linspace(0.5, 0.95, 10)
"""At which COCO AP is measured; a box is right that overlaps an object of its class so much."""

CONFIDENCES: Final = np.round(np.linspace(0, 1, 101), 2)
"""At which F1 is measured."""

_RECALLS: Final = np.linspace(0, 1, 101)


class Matches(NamedTuple):
    """The boxes of one class in all images, best score first, as COCO's evaluator matched them.

    Attributes:
        score: float64 (n,).
        image: int64 (n,), index of the image.
        right: bool (10, n), whether the box is an object's at each of `IOUS`; (1, n), at the first
            of them, where one detector alone was evaluated.
        ignored: bool, likewise, whether it is neither right nor wrong.
        objects: int64 (images,), how many there are to be found.
    """

    score: npt.NDArray[np.float64]
    image: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]
    objects: npt.NDArray[np.int64]


def f1_curve(one: Matches) -> npt.NDArray[np.float64]:
    """Return F1 = 2 TP / (boxes + objects) at IoU 0.50 and each of `CONFIDENCES`, float64 (101,).

    NaN where there is no object.
    """
    total = one.objects.sum()
    if total == 0:
        return np.full(len(CONFIDENCES), np.nan)
    kept = np.searchsorted(-one.score, -CONFIDENCES, side="right")
    right = np.concatenate([[0], np.cumsum(one.right[0])])[kept]
    boxes = np.concatenate([[0], np.cumsum(~one.ignored[0])])[kept]
    return np.asarray(2 * right / (boxes + total), np.float64)


def peak(curve: npt.NDArray[np.float64], least: float) -> tuple[float, float]:
    """Return the highest value of a curve over `CONFIDENCES`, and where it is.

    Of several such places the middle of the longest stretch of them, which is the farthest from a
    worse one.

    Args:
        curve: float64 (101,).
        least: Score below which no box was kept, so that the curve is not known there.

    Returns:
        The value, NaN where the curve is not known; the place, NaN where it is 0 everywhere.
    """
    curve, places = curve[least <= CONFIDENCES], CONFIDENCES[least <= CONFIDENCES]
    highest = float(curve.max())
    if not highest > 0:
        return highest, np.nan
    best = np.flatnonzero(curve == highest)
    longest = max(np.split(best, np.flatnonzero(np.diff(best) > 1) + 1), key=len)
    return highest, float(places[longest[len(longest) // 2]])


def average_precision(one: Matches, weights: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return COCO AP of one class for several choices of images, without matching anew.

    It is what the evaluator gives for a set that has image i `weights[b, i]` times: the boxes of
    such copies have equal scores, and precision between them is no peak of the curve.

    Args:
        one: The boxes.
        weights: int64 (b, images), how often each choice has each image.

    Returns:
        float64 (b, 10), or (b, 1), at each IoU of `one`; NaN where a choice has no object.
    """
    total = weights @ one.objects
    own = weights[:, one.image]
    before = np.cumsum(own, axis=1)  # boxes up to each one
    columns = [
        _at_iou(own, before, right, ignored, total)
        for right, ignored in zip(one.right, one.ignored, strict=True)
    ]
    result = np.stack(columns, axis=1)
    result[total == 0] = np.nan
    return result


def _at_iou(
    own: npt.NDArray[np.int64],
    before: npt.NDArray[np.int64],
    right: npt.NDArray[np.bool_],
    ignored: npt.NDArray[np.bool_],
    total: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    # Only where a right box is does recall grow, and only there can precision have a peak.
    steps = np.flatnonzero(right)
    if not len(steps):
        return np.zeros(len(own))
    boxes = before[:, steps]
    if ignored.any():
        boxes = boxes - np.cumsum(own * ignored, axis=1)[:, steps]
    found = np.cumsum(own[:, steps], axis=1)
    precision = found / np.maximum(boxes, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(_RECALLS, found / np.maximum(total, 1)[:, np.newaxis], side="right")
    return np.asarray((np.diff(reached, axis=1, prepend=0) * envelope).sum(axis=1) / len(_RECALLS))
