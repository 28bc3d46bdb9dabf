"""COCO average precision of a detector on an annotated image set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rdlite.detector import Detector
from rdlite.errors import ImageError
from rdlite.evaluate.classnames import SharedClasses, share_classes, some
from rdlite.evaluate.cocofile import is_ignored, read_coco
from rdlite.evaluate.dataset import DataError, ImageStore, check_size

_AREAS = ("all", "small", "medium", "large")
_HEADER = f"{'class':20} {'AP':>6} {'AP50':>6}"

FEW_IMAGES: Final = 50
"""Sets smaller than this get a word of caution: a few images more or less move AP by points."""


@dataclass(frozen=True, slots=True, eq=False)
class EvalResult:
    """How well a detector did; every number in [0, 1], NaN where the set has nothing to measure.

    Attributes:
        ap: Mean over the classes and the IoUs 0.50, 0.55 ... 0.95 (COCO AP).
        ap50: At IoU 0.50.
        ap75: At IoU 0.75.
        ap_small: Objects under 32 x 32 pixels.
        ap_medium: Objects from 32 x 32 to 96 x 96 pixels.
        ap_large: Larger objects.
        ar: Mean recall over classes and IoUs, with `max_det` detections an image.
        per_class: (AP, AP50) by class name.
        precision50: float64 (classes, 101), precision at IoU 0.50 and recall 0.00, 0.01 ... 1.00;
            rows as `per_class`.
        images: How many images were evaluated.
        failed: (file name, reason) of the images that could not be read; they count for nothing.
        unknown_classes: Annotated classes that the detector does not have; they count for nothing.
        renamed_classes: "set's name = detector's name" of classes that the two spell differently.
        dropped_nonfinite: Anchors left out because the network gave NaN or infinity.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: float
    per_class: Mapping[str, tuple[float, float]]
    precision50: npt.NDArray[np.float64]
    images: int
    failed: tuple[tuple[str, str], ...]
    unknown_classes: tuple[str, ...]
    renamed_classes: tuple[str, ...]
    dropped_nonfinite: int

    def summary(self) -> str:
        """Return the result as a table, numbers in percent."""
        rows = [_HEADER, *(_row(name, *values) for name, values in self.per_class.items())]
        rows.append(_row("all", self.ap, self.ap50))
        rows.append(
            f"AP75 {_percent(self.ap75)}  small {_percent(self.ap_small)}  "
            f"medium {_percent(self.ap_medium)}  large {_percent(self.ap_large)}  "
            f"AR {_percent(self.ar)}  images {self.images}"
        )
        rows += self.notes()
        return "\n".join(rows)

    def notes(self) -> list[str]:
        """Say what does not count, and what else must be known to read the numbers."""
        notes = []
        if self.images < FEW_IMAGES:
            plural = "" if self.images == 1 else "s"
            notes.append(f"{self.images} image{plural}: AP is uncertain")
        if self.failed:
            name, reason = self.failed[0]
            notes.append(
                f"not counted: {len(self.failed)} unreadable images, first {name}: {reason}"
            )
        if self.unknown_classes:
            names = some(self.unknown_classes)
            notes.append(f"not counted: classes unknown to the model: {names}")
        if self.renamed_classes:
            notes.append(f"spelled differently, taken as one: {some(self.renamed_classes)}")
        if self.dropped_nonfinite:
            notes.append(f"{self.dropped_nonfinite} anchors gave NaN or infinity and were left out")
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values, without the curves; NaN becomes None."""
        numbers = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar")
        return {
            **{name: _or_none(getattr(self, name)) for name in numbers},
            "per_class": {
                name: {"ap": _or_none(ap), "ap50": _or_none(ap50)}
                for name, (ap, ap50) in self.per_class.items()
            },
            "images": self.images,
            "failed": [{"file_name": name, "reason": reason} for name, reason in self.failed],
            "unknown_classes": list(self.unknown_classes),
            "renamed_classes": list(self.renamed_classes),
            "dropped_nonfinite": self.dropped_nonfinite,
        }


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _row(name: str, ap: float, ap50: float) -> str:
    return f"{name:20} {_percent(ap):>6} {_percent(ap50):>6}"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def evaluate(
    detector: Detector,
    annotations: str | Path,
    images: str | Path,
    *,
    conf: float = 0.01,
    iou: float | None = None,
    nms: str | None = None,
    max_det: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> EvalResult:
    """Measure COCO average precision with faster-coco-eval.

    Classes are matched by name (`rdlite.evaluate.classnames.match_classes`), never by category id;
    the result says which names differ. Only classes that the set annotates count, and only they
    are detected, so that others do not use up `max_det`. Annotations with "iscrowd" or "ignore"
    are neither right nor wrong to find.

    Args:
        detector: The detector.
        annotations: COCO json file.
        images: Folder of its images or of tar shards with them, or one tar.
        conf: Least confidence of a detection; low, because AP needs the whole curve.
        iou: As for the detector; None keeps its own.
        nms: As for the detector; None keeps its own.
        max_det: Most detections in an image.
        progress: Called with (images done, images in all) after each image.

    Raises:
        ImportError: faster-coco-eval is not installed.
        DataError: The annotations are unusable, share no class with the detector, or no image can
            be read.
        OptionError: As the detector.
    """
    coco_class, eval_class = _import_evaluator()
    content = _read(Path(annotations))
    classes = share_classes(content, detector.names, annotations)
    found, evaluated, failed, dropped = _detect_all(
        detector,
        content["images"],
        ImageStore(images),
        progress=progress,
        options={
            "conf": conf,
            "iou": iou,
            "nms": nms,
            "max_det": max_det,
            "classes": list(classes.names),
        },
    )
    if not evaluated:
        name, reason = failed[0]
        raise DataError(
            f"none of the {len(failed)} images of {annotations} can be read from {images}; "
            f"the first, {name}: {reason}"
        )
    ours = dict(zip(detector.category_ids, detector.names, strict=True))
    for entry in found:
        entry["category_id"] = 1 + classes.names.index(ours[entry["category_id"]])
    truth = coco_class(_truth(content, evaluated, classes))
    run = eval_class(truth, truth.loadRes(found), iouType="bbox")
    run.params.maxDets = [max_det]
    run.evaluate()
    run.accumulate()
    return _result(
        np.asarray(run.eval["precision"])[..., 0],
        np.asarray(run.eval["recall"])[..., 0],
        classes=classes,
        images=len(evaluated),
        failed=tuple(failed),
        dropped=dropped,
    )


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir() or path.suffix.lower() in (".yaml", ".yml"):
        kind = "a folder" if path.is_dir() else "YAML"
        raise DataError(
            f"{path} is {kind}; give a COCO json file, or measure VOC and YOLO sets with "
            "`python -m train eval` from a checkout of the project"
        )
    return read_coco(path)


def _import_evaluator() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise ImportError(
            "evaluation needs faster-coco-eval; run `pip install rdlite[eval]`"
        ) from error
    return COCO, COCOeval_faster


def _detect_all(
    detector: Detector,
    images: list[dict[str, Any]],
    store: ImageStore,
    *,
    progress: Callable[[int, int], None] | None,
    options: dict[str, Any],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[tuple[str, str]], int]:
    """Return COCO results, the images evaluated, (file name, reason) of others, dropped anchors."""
    found: list[dict[str, Any]] = []
    evaluated: list[dict[str, Any]] = []
    failed: list[tuple[str, str]] = []
    dropped = 0
    for done, image in enumerate(images, start=1):
        try:
            data = store.read(image["file_name"])
            detections = detector(data, **options)
            check_size(detections.image_size, (image["width"], image["height"]), data)
        except ImageError as error:
            failed.append((image["file_name"], str(error)))
        else:
            found += detections.to_coco(image["id"])
            evaluated.append(image)
            dropped += detections.dropped_nonfinite
        if progress is not None:
            progress(done, len(images))
    return found, evaluated, failed, dropped


def _truth(
    content: dict[str, Any], images: list[dict[str, Any]], classes: SharedClasses
) -> dict[str, Any]:
    """Build what the evaluator reads, from the images and classes that count.

    It sorts what it measures by category id, so the ids here are the numbers of the classes.
    """
    ids = {image["id"] for image in images}
    kept = [
        annotation
        for annotation in content["annotations"]
        if annotation["image_id"] in ids and annotation["category_id"] in classes.numbers
    ]
    return {
        "images": images,
        "categories": [{"id": k, "name": name} for k, name in enumerate(classes.names, start=1)],
        "annotations": [
            {
                # The evaluator takes id 0 for "no match".
                "id": position,
                "image_id": annotation["image_id"],
                "category_id": classes.numbers[annotation["category_id"]],
                "bbox": annotation["bbox"],
                "area": annotation.get("area", annotation["bbox"][2] * annotation["bbox"][3]),
                "iscrowd": int(is_ignored(annotation)),
            }
            for position, annotation in enumerate(kept, start=1)
        ],
    }


def _result(
    precision: npt.NDArray[np.float64],
    recall: npt.NDArray[np.float64],
    *,
    classes: SharedClasses,
    images: int,
    failed: tuple[tuple[str, str], ...],
    dropped: int,
) -> EvalResult:
    """Average precision (IoU, recall, class, area) and recall (IoU, class, area)."""
    whole = precision[..., 0]
    sizes = {f"ap_{area}": _mean(precision[..., k]) for k, area in enumerate(_AREAS) if k}
    return EvalResult(
        ap=_mean(whole),
        ap50=_mean(whole[0]),
        ap75=_mean(whole[5]),
        **sizes,
        ar=_mean(recall[..., 0]),
        per_class={
            name: (_mean(whole[:, :, k]), _mean(whole[0, :, k]))
            for k, name in enumerate(classes.names)
        },
        precision50=np.where(whole[0] < 0, np.nan, whole[0]).T,
        images=images,
        failed=failed,
        unknown_classes=classes.unknown,
        renamed_classes=classes.renamed,
        dropped_nonfinite=dropped,
    )


def _mean(values: npt.NDArray[np.float64]) -> float:
    """Mean of the measured values; the evaluator marks "no such object" with -1."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else math.nan
