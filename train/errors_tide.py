"""What kinds of errors a detector makes and what each costs, after TIDE (arXiv 2008.08115)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rdlite.evaluate.matches import Matches, average_precision
from rdlite.evaluate.score import Truth

RIGHT_IOU, BACKGROUND_IOU = 0.5, 0.1
"""The paper's t_f and t_b: overlap from which on a box is right, and up to which on background."""

RIGHT, CLASS, PLACE, BOTH, DUPLICATE, BACKGROUND, MISSED = range(7)
KINDS = ("right", "class", "place", "both", "duplicate", "background", "missed")
"""Names of the numbers above; `MISSED` is said of objects, the others of boxes."""

ERRORS = range(CLASS, MISSED + 1)


class Boxes(NamedTuple):
    """What was found, without the boxes on regions to be ignored, best score first.

    Attributes:
        image: int (n,), index of the image.
        label: int (n,), index of the class.
        score: float64 (n,).
        xywh: float64 (n, 4), left, top, width and height in pixels.
        kind: int (n,), index in `KINDS`.
        target: int (n,), the object that it is on if right, or should be of if its class or place
            is wrong; else -1.
        mends: bool (n,), whether it would find its target if it were mended: nothing else has found
            that, and no better box would.
    """

    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    xywh: np.ndarray
    kind: np.ndarray
    target: np.ndarray
    mends: np.ndarray


class Objects(NamedTuple):
    """What there is to be found.

    Attributes:
        image: int (m,), index of the image.
        label: int (m,), index of the class.
        xywh: float64 (m, 4), left, top, width and height in pixels.
        box: int (m,), the box that has found it, or would if it were mended; -1 where it is missed.
        missed: bool (m,), whether no box has found it or would.
    """

    image: np.ndarray
    label: np.ndarray
    xywh: np.ndarray
    box: np.ndarray
    missed: np.ndarray


class Errors(NamedTuple):
    """All errors of a detector on a set.

    Attributes:
        names: Of the classes.
        images: Ids of the images, by index.
        boxes: What was found.
        objects: What there is to be found.
        ap50: float64 (classes,), AP at IoU 0.5; NaN where there is no object.
    """

    names: Sequence[str]
    images: Sequence[int | str]
    boxes: Boxes
    objects: Objects
    ap50: np.ndarray

    def gain(self, boxes: np.ndarray, missed: np.ndarray) -> np.ndarray:
        """By how much AP50 would grow if some errors were mended, float64 (classes,).

        The oracles of the paper's section 3: a box of a wrong class or place becomes the object's
        if it `mends` and goes otherwise, other wrong boxes go, and missed objects are not to be
        found. As in tidecv, a class with boxes and no object left to be found counts with 0.

        Args:
            boxes: bool (n,), which wrong boxes.
            missed: bool (m,), which missed objects.
        """
        changed = [self.boxes.label[boxes], self.objects.label[missed]]
        mended = boxes & self.boxes.mends
        changed.append(self.objects.label[self.boxes.target[mended]])
        after = self.ap50.copy()
        classes = np.unique(np.concatenate(changed))
        after[classes] = _ap50(self.boxes, self.objects, classes, boxes, missed)
        return after - self.ap50

    def of_kind(self, kind: int) -> tuple[np.ndarray, np.ndarray]:
        """All errors of a kind, as `gain` takes them."""
        none = np.zeros(len(self.objects.label), bool)
        return self.boxes.kind == kind, self.objects.missed if kind == MISSED else none

    def mean_gain(self, boxes: np.ndarray, missed: np.ndarray) -> float:
        """The gain of AP50 as the mean over classes, as `gain`; the paper's dAP, never negative.

        Where neither boxes nor objects are left, nothing is wrong, and AP50 counts as 1.
        """
        after = self.ap50 + self.gain(boxes, missed)
        if np.isnan(after).all():
            after = np.ones(1)
        return max(0.0, float(np.nanmean(after) - np.nanmean(self.ap50)))


def find_errors(truth: Truth, boxes: Sequence[dict], images: Sequence[int | str]) -> Errors:
    """Sort the boxes that are wrong by what is wrong with them.

    Right are the boxes that COCO's evaluator says are, at IoU 0.5. Those on regions to be ignored
    are left out, as they are neither right nor wrong (tidecv looks for errors among them too).

    Args:
        truth: The objects.
        boxes: What `rdlite.evaluate.score.keep_best` returned.
        images: Ids of the images in the order of `truth`.
    """
    rows = [one for one in truth.coco.anns.values() if not one["iscrowd"]]
    there, places = _columns(rows), _columns(boxes)
    score = np.array([one["score"] for one in boxes], float)
    target, ignored = _match(truth, boxes, [one["id"] for one in rows])
    order = np.argsort(-score, kind="stable")
    order = order[~ignored[order]]
    image, label, xywh = (column[order] for column in places)
    score, target = score[order], target[order]
    found = np.zeros(len(rows), bool)
    found[target[target >= 0]] = True
    kind = np.where(target >= 0, RIGHT, BACKGROUND)
    for k in range(len(images)):
        wrong, theirs = (image == k) & (kind != RIGHT), np.flatnonzero(there[0] == k)
        same = label[wrong, None] == there[1][theirs]
        overlap = _iou(xywh[wrong], there[2][theirs])
        kind[wrong], place = _kinds(overlap, same, found[theirs])
        target[wrong] = np.append(theirs, -1)[place]
    mends, box = _mending(kind, target, found)
    made = Boxes(image, label, score, xywh, kind, target, mends)
    objects = Objects(*there, box, missed=box < 0)
    none = np.zeros(len(kind), bool), objects.missed & False
    ap50 = _ap50(made, objects, np.arange(len(truth.names)), *none)
    ap50[truth.objects.sum(axis=1) == 0] = np.nan
    return Errors(truth.names, images, made, objects, ap50)


def _match(
    truth: Truth, boxes: Sequence[dict], ids: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Find the object of each right box, its place in `ids` or -1, and the boxes to be ignored."""
    loaded = truth.coco.loadRes(list(boxes))
    number = truth.match(loaded, RIGHT_IOU, maxDets=[max(1, len(boxes))])
    places = np.full(len(truth.ignored), -1)
    places[ids] = np.arange(len(ids))
    return places[number], truth.ignored[number]


def _columns(rows: Sequence[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image, label = (
        np.array([one[name] for one in rows], int) - 1 for name in ("image_id", "category_id")
    )
    return image, label, np.array([one["bbox"] for one in rows], float).reshape(-1, 4)


def _kinds(
    overlap: np.ndarray, same: np.ndarray, found: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Say what is wrong with boxes, and the column of the object that they should be of, or -1.

    Args:
        overlap: IoU (boxes, objects).
        same: bool, likewise, whether the two have one class.
        found: bool (objects,), whether a right box is on it.
    """
    if not len(found):
        return np.full(len(overlap), BACKGROUND), np.full(len(overlap), -1)
    own, other = overlap * same, overlap * ~same
    best = own.max(axis=1)
    tests = [
        (best >= BACKGROUND_IOU) & (best <= RIGHT_IOU),
        other.max(axis=1) >= RIGHT_IOU,
        (own * found).max(axis=1) >= RIGHT_IOU,
        overlap.max(axis=1) <= BACKGROUND_IOU,
    ]
    kinds = np.select(tests, [PLACE, CLASS, DUPLICATE, BACKGROUND], BOTH)
    return kinds, np.select(tests[:2], [own.argmax(axis=1), other.argmax(axis=1)], -1)


def _mending(
    kind: np.ndarray, target: np.ndarray, found: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the best box for each object: `Boxes.mends` and `Objects.box`."""
    box = np.full(len(found), -1)
    aimed = np.flatnonzero((kind == RIGHT) | ((target >= 0) & ~np.append(found, False)[target]))
    objects, first = np.unique(target[aimed], return_index=True)  # the first has the best score
    box[objects] = aimed[first]
    mends = np.zeros(len(target), bool)
    mends[box[(box >= 0) & ~found]] = True
    return mends, box


def _ap50(
    boxes: Boxes, objects: Objects, classes: np.ndarray, mended: np.ndarray, missed: np.ndarray
) -> np.ndarray:
    """AP50 of some classes after errors were mended; arguments as `Errors.gain`."""
    kept = ~mended | boxes.mends
    right = (boxes.kind == RIGHT) | (mended & boxes.mends)
    label = np.where(mended & boxes.mends, np.append(objects.label, -1)[boxes.target], boxes.label)
    total = np.bincount(objects.label[~missed], minlength=max(classes, default=0) + 1)
    values = []
    for k in classes:
        rows = np.flatnonzero(kept & (label == k))
        values.append(_average_precision(boxes.score[rows], right[rows], total[k]))
    return np.array(values, float)


def _average_precision(score: np.ndarray, right: np.ndarray, total: int) -> float:
    if not total:
        return 0.0 if len(score) else np.nan
    nothing = np.zeros((1, len(score)), bool)
    one = Matches(score, np.zeros(len(score), int), right[None], nothing, np.array([total]))
    return float(average_precision(one, np.ones((1, 1), int))[0, 0])


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of each pair of xywh boxes, (len(a), len(b))."""
    a, b = a[:, None], b[None]
    ends = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    inner = (ends - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(axis=-1)
    return inner / np.maximum(a[..., 2:].prod(axis=-1) + b[..., 2:].prod(axis=-1) - inner, 1e-9)
