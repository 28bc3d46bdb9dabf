"""Which boxes of two models are the same object."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

IOU: Final = 0.5
"""Overlap (intersection over union) from which two boxes of one class are the same object."""


class Boxes(NamedTuple):
    """The boxes of one model in one picture.

    Attributes:
        xyxy: float32 `(n, 4)`, pixels, x1 y1 x2 y2.
        score: float32 `(n,)`.
        label: int64 `(n,)`, numbers of classes that mean the same for both models.
    """

    xyxy: npt.NDArray[np.float32]
    score: npt.NDArray[np.float32]
    label: npt.NDArray[np.int64]


def match(first: Boxes, other: Boxes) -> npt.NDArray[np.intp]:
    """Pair boxes of one class that overlap by `IOU` or more, each at most once.

    The pairs that both are surest of come first, by the smaller of the two scores; of equal ones,
    those that overlap most. Which model is the first makes no difference.

    Returns:
        intp `(pairs, 2)`: index in `first`, index in `other`.
    """
    overlap = _iou(first.xyxy, other.xyxy)
    same = first.label[:, None] == other.label[None]
    rows, columns = np.nonzero(same & (overlap >= IOU))
    scores = np.minimum(first.score[rows], other.score[columns])
    pairs, used_first, used_other = [], set(), set()
    for place in np.lexsort((-overlap[rows, columns], -scores)).tolist():
        row, column = int(rows[place]), int(columns[place])
        if row not in used_first and column not in used_other:
            pairs.append((row, column))
            used_first.add(row)
            used_other.add(column)
    return np.array(pairs, np.intp).reshape(-1, 2)


def _iou(first: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return float64 `(n, m)`; 0 for boxes without area."""
    a, b = first.astype(np.float64), other.astype(np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))
