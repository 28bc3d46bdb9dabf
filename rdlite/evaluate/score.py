"""The numbers of an evaluation, all from the matching of COCO's evaluator (faster-coco-eval)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rdlite.evaluate.classnames import SharedClasses
from rdlite.evaluate.cocofile import is_ignored
from rdlite.evaluate.matches import Matches, f1_curve, peak
from rdlite.evaluate.result import CONFUSION_CONF, NUMBERS, ClassResult
from rdlite.evaluate.sources import Image

_ALL = [0, 1e10]
"""The evaluator's range of areas that all objects are in, square pixels."""


def import_evaluator() -> tuple[Any, Any]:
    """Return COCO and COCOeval of faster-coco-eval.

    Raises:
        ImportError: It is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise ImportError(
            "evaluation needs faster-coco-eval; run `pip install faster-coco-eval`"
        ) from error
    return COCO, COCOeval_faster


class Truth:
    """The annotations that count, as the evaluator reads them.

    It sorts what it measures by id, so classes have their numbers as ids here, and images theirs
    in the order of the set's ids, or of the file where these are text.

    Args:
        content: A COCO file's.
        images: The images that count.
        classes: The classes that count.
    """

    def __init__(
        self, content: Mapping[str, Any], images: Sequence[Image], classes: SharedClasses
    ) -> None:
        coco_class, self._eval_class = import_evaluator()
        ids = [image["id"] for image in images]
        if all(isinstance(one, int) for one in ids):
            ids.sort()
        self.images = {one: number for number, one in enumerate(ids, start=1)}
        self.names = classes.names
        kept = [
            one
            for one in content["annotations"]
            if one["image_id"] in self.images and one["category_id"] in classes.numbers
        ]
        annotations = [self._annotation(k, one, classes) for k, one in enumerate(kept, start=1)]
        self.coco = coco_class(
            {
                "images": [{"id": number} for number in self.images.values()],
                "categories": [{"id": k, "name": n} for k, n in enumerate(classes.names, start=1)],
                "annotations": annotations,
            }
        )
        # By id, which begins with 1.
        self.ignored = np.array([False, *(one["iscrowd"] == 1 for one in annotations)])
        self.category = np.array([0, *(one["category_id"] for one in annotations)])
        self.objects = np.zeros((len(classes.names), len(self.images)), np.int64)
        for one in annotations:
            if not one["iscrowd"]:
                self.objects[one["category_id"] - 1, one["image_id"] - 1] += 1

    def _annotation(
        self, number: int, one: Mapping[str, Any], classes: SharedClasses
    ) -> dict[str, Any]:
        return {
            # The evaluator takes id 0 for "no match".
            "id": number,
            "image_id": self.images[one["image_id"]],
            "category_id": classes.numbers[one["category_id"]],
            "bbox": one["bbox"],
            "area": one.get("area", one["bbox"][2] * one["bbox"][3]),
            "iscrowd": int(is_ignored(one)),
        }

    def run(self, boxes: Any, **params: Any) -> Mapping[str, Any]:
        """Return what the evaluator gives for boxes, with some of its parameters changed.

        Args:
            boxes: What `coco.loadRes` returned.
            **params: Attributes of the evaluator's `params`.
        """
        run = self._eval_class(self.coco, boxes, iouType="bbox")
        for name, value in params.items():
            setattr(run.params, name, value)
        run.evaluate()
        run.accumulate()
        evaluated: Mapping[str, Any] = run.eval
        return evaluated

    def match(self, boxes: Any, iou: float, **params: Any) -> npt.NDArray[np.int64]:
        """Return the id of the object that each box was matched with, 0 for none, int64 (n,).

        Args:
            boxes: As `run`.
            iou: Least overlap.
            **params: As `run`.
        """
        at = {"iouThrs": np.array([iou]), "areaRng": [_ALL], "areaRngLbl": ["all"]}
        run = self.run(boxes, **at, **params)
        objects = np.zeros(len(boxes.anns), np.int64)
        for pair in run["matched"]:  # the evaluator numbers boxes from 1, in their order
            box, one = map(int, pair.split("_"))
            objects[box - 1] = one
        return objects


def keep_best(
    boxes: Mapping[Any, Sequence[Mapping[str, Any]]], truth: Truth, most: int
) -> list[dict[str, Any]]:
    """Return the boxes of all images, at most `most` of a class in an image, as COCO counts them.

    Args:
        boxes: COCO results by image id.
        truth: Its images are the ones that count.
        most: COCO's "maxDets".

    Returns:
        COCO results with the ids of `truth`, image by image, each best first.
    """
    kept = []
    for image, number in truth.images.items():
        counts = Counter[int]()
        for one in sorted(boxes[image], key=lambda one: -one["score"]):
            counts[one["category_id"]] += 1
            if counts[one["category_id"]] <= most:
                fields = {name: one[name] for name in ("category_id", "bbox", "score")}
                kept.append({"image_id": number, **fields})
    return kept


class Scores(NamedTuple):
    """The numbers of an `EvalResult`; its attributes of the same names."""

    numbers: Mapping[str, float]
    per_class: Mapping[str, ClassResult]
    precision50: npt.NDArray[np.float64]
    confusion: npt.NDArray[np.int64]
    matches: tuple[Matches, ...]


def score(
    truth: Truth,
    boxes: Sequence[dict[str, Any]],
    max_det: int,
    ious: npt.NDArray[np.float64],
    conf: float,
) -> Scores:
    """Measure boxes by annotations.

    Args:
        truth: The annotations.
        boxes: What `keep_best` returned.
        max_det: COCO's "maxDets".
        ious: Which of `IOUS` the matches are wanted at, the first among them.
        conf: Least score that was kept when the boxes were made.
    """
    loaded = truth.coco.loadRes(list(boxes))
    run = truth.run(loaded, maxDets=[max_det])
    precision, recall = np.asarray(run["precision"])[..., 0], np.asarray(run["recall"])[..., 0]
    whole = precision[..., 0]  # (IoU, recall, class); after it come small, medium and large
    values = (whole, whole[0], whole[5], *np.moveaxis(precision, -1, 0)[1:], recall[..., 0])
    objects = np.stack([truth.match(loaded, iou, maxDets=[max_det]) for iou in ious])
    matches = by_class(truth, boxes, objects)
    return Scores(
        numbers=dict(zip(NUMBERS, map(_mean, values), strict=True)),
        per_class={
            name: _class_result(whole[..., k], one, conf)
            for k, (name, one) in enumerate(zip(truth.names, matches, strict=True))
        },
        precision50=np.where(whole[0] < 0, np.nan, whole[0]).T,
        confusion=confuse(truth, boxes),
        matches=matches,
    )


def by_class(
    truth: Truth, boxes: Sequence[dict[str, Any]], found: npt.NDArray[np.int64]
) -> tuple[Matches, ...]:
    """Return the matches of each class; `found` (IoUs, boxes) is what `Truth.match` returned."""
    category, image = (
        np.array([one[name] for one in boxes], np.int64) for name in ("category_id", "image_id")
    )
    scores = np.array([one["score"] for one in boxes], np.float64)
    matches = []
    for number, objects in enumerate(truth.objects, start=1):
        rows = np.flatnonzero(category == number)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        ignored = truth.ignored[found[:, rows]]
        right = (found[:, rows] > 0) & ~ignored
        matches.append(Matches(scores[rows], image[rows] - 1, right, ignored, objects))
    return tuple(matches)


def confuse(truth: Truth, boxes: Sequence[dict[str, Any]]) -> npt.NDArray[np.int64]:
    """Count which classes are taken for which.

    Boxes of `CONFUSION_CONF` and more are matched with objects of any class at an IoU of 0.50 and
    more, the best score first, each with the object that it overlaps most of those still free:
    COCO's matching without classes, as the confusion matrix of FiftyOne with `classwise=False`.

    Returns:
        int64 (classes + 1, classes + 1): row "annotated as", column "found as"; in the last row
        boxes on no object, in the last column objects that no box is on. Objects to be ignored,
        and the boxes on them, are in neither.
    """
    boxes = [one for one in boxes if one["score"] >= CONFUSION_CONF]
    loaded = truth.coco.loadRes(boxes)
    found = truth.match(loaded, 0.5, useCats=0, maxDets=[max(1, len(boxes))])
    background = len(truth.names)
    counts = np.zeros((background + 1, background + 1), np.int64)
    for one, matched in zip(boxes, found, strict=True):
        if not truth.ignored[matched]:
            row = truth.category[matched] - 1 if matched else background
            counts[row, one["category_id"] - 1] += 1
    counts[:-1, -1] = truth.objects.sum(axis=1) - counts[:-1].sum(axis=1)
    return counts


def _class_result(precision: npt.NDArray[np.float64], one: Matches, conf: float) -> ClassResult:
    ap, ap50, ap75 = map(_mean, (precision, precision[0], precision[5]))
    objects, images = int(one.objects.sum()), int(np.count_nonzero(one.objects))
    return ClassResult(ap, ap50, ap75, objects, images, *peak(f1_curve(one), conf))


def _mean(values: npt.NDArray[np.float64]) -> float:
    """Mean of the measured values; the evaluator marks "no such object" with -1."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else math.nan
