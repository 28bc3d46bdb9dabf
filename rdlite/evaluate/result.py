"""What an evaluation says: numbers, a table and JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rdlite import defaults
from rdlite.evaluate.classnames import some
from rdlite.evaluate.matches import CONFIDENCES, Matches, f1_curve, peak

FEW_IMAGES: Final = 50
"""Sets smaller than this get a word of caution: a few images more or less move AP by points."""

CONF: Final = 0.01
"""Highest `conf` at which AP is that of the COCO protocol: it needs the whole curve."""

MAX_DET: Final = 100
"""Boxes an image of the COCO protocol."""

BACKGROUND: Final = "background"
"""The last row and column of a confusion matrix: what is no object, what was not found."""

CONFUSION_CONF: Final = defaults.CONF
"""Least score of a box in the confusion matrix: the default of `Detector`."""

NUMBERS: Final = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "ar": "AR",
}
"""The numbers over all classes, and what tables call them."""


class ClassResult(NamedTuple):
    """How well one class was found; NaN where there is nothing to measure.

    Attributes:
        ap: Mean over the IoUs 0.50, 0.55 ... 0.95.
        ap50: At IoU 0.50.
        ap75: At IoU 0.75.
        objects: How many are annotated, those to be ignored left out.
        images: How many images have at least one of them.
        f1: The best F1 at IoU 0.50 of any confidence 0.00, 0.01 ... 1.00, from the least score
            that was kept on.
        conf: The confidence that has it; NaN if that is 0.
    """

    ap: float
    ap50: float
    ap75: float
    objects: int
    images: int
    f1: float
    conf: float


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
        per_class: The same of each class, by its name.
        precision50: float64 (classes, 101), precision at IoU 0.50 and recall 0.00, 0.01 ... 1.00;
            rows as `per_class`.
        confusion: int64 (classes + 1, classes + 1): annotated objects by row, boxes by column,
            background last; see `rdlite.evaluate.score.confuse`.
        matches: Which boxes are right, class by class; rows as `per_class`.
        options: `conf`, `iou`, `nms` and `max_det` of the boxes; None where it is not known.
        images: How many images were evaluated.
        failed: (file name, reason) of the images without an answer, this one's or that of another
            detector measured with it; they count for nothing.
        unknown_classes: Annotated classes that the detector does not have; they count for nothing.
        renamed_classes: "set's name = detector's name" of classes that the two spell differently.
        dropped_nonfinite: Anchors left out because the network gave NaN or infinity.
        damage: A sentence for each thing that a file of detections has lost.
        remarks: A sentence for each thing in it that does not count.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: float
    per_class: Mapping[str, ClassResult]
    precision50: npt.NDArray[np.float64]
    confusion: npt.NDArray[np.int64]
    matches: tuple[Matches, ...]
    options: Mapping[str, Any]
    images: int
    failed: tuple[tuple[str, str], ...] = ()
    unknown_classes: tuple[str, ...] = ()
    renamed_classes: tuple[str, ...] = ()
    dropped_nonfinite: int = 0
    damage: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def f1(self) -> npt.NDArray[np.float64]:
        """Return F1 at IoU 0.50 by class and confidence, float64 (classes, 101).

        Row k, column c: of class k when boxes below `CONFIDENCES[c]` are left out; NaN where the
        class has no object to be found.
        """
        return np.stack([f1_curve(one) for one in self.matches])

    def best_f1(self) -> tuple[float, float]:
        """Return the best mean F1 of all classes with one confidence for all, and this confidence.

        A value for `--conf` where missing an object and a false one weigh the same.
        """
        curves = self.f1()
        measured = curves[~np.isnan(curves).any(axis=1)]
        mean = measured.mean(axis=0) if len(measured) else np.full(len(CONFIDENCES), np.nan)
        return peak(mean, self.options.get("conf") or 0.0)

    def complete(self) -> bool:
        """Whether every image was evaluated and no file of detections has lost anything."""
        return not self.failed and not self.damage

    def summary(self) -> str:
        """Return the result as a table, numbers in percent."""
        width = max(20, *map(len, self.per_class))
        head = f"{'class':{width}}{'AP':>7}{'AP50':>7}{'AP75':>7}"
        rows = [
            self.protocol(),
            f"{head}{'objects':>9}{'images':>8}{'best F1':>9}{'at conf':>9}",
            *(_row(f"{name:{width}}", one) for name, one in self.per_class.items()),
        ]
        objects = sum(one.objects for one in self.per_class.values())
        whole = ClassResult(self.ap, self.ap50, self.ap75, objects, self.images, *self.best_f1())
        rows.append(_row(f"{'all':{width}}", whole))
        rows.append(
            f"small {percent(self.ap_small)}  medium {percent(self.ap_medium)}  "
            f"large {percent(self.ap_large)}  AR {percent(self.ar)}  images {self.images}"
        )
        return "\n".join([*rows, *self.notes()])

    def protocol(self) -> str:
        """Say how the boxes were made, and whether that is the COCO protocol."""
        conf, most, nms = (self.options.get(name) for name in ("conf", "max_det", "nms"))
        parts = [
            "score ≥ " + ("unknown" if conf is None else f"{conf:g}"),
            f"at most {'an unknown number of' if most is None else most} boxes an image",
            "suppression unknown" if nms is None else f"nms {nms}",
        ]
        if nms in ("hard", "linear"):
            parts[-1] += f" at {self.options.get('iou')}"
        verdict = "COCO protocol"
        if self.warnings():
            verdict = "NOT the COCO protocol"
        elif conf is None or most is None:
            verdict = "perhaps the COCO protocol"
        return f"{verdict}: {', '.join(parts)}"

    def warnings(self) -> list[str]:
        """Say what makes the numbers other than what COCO AP means elsewhere."""
        conf, most = self.options.get("conf"), self.options.get("max_det")
        faults = []
        if conf is not None and conf > CONF:
            faults.append(f"boxes with a score below {conf:g} are missing (--conf {CONF:g})")
        if most is not None and most != MAX_DET:
            faults.append(f"{most} boxes an image are allowed (--max-det {MAX_DET})")
        if not faults:
            return []
        return [f"AP cannot be compared with that of others: {' and '.join(faults)}"]

    def notes(self) -> list[str]:
        """Say what does not count, and what else must be known to read the numbers."""
        notes = []
        if self.images < FEW_IMAGES:
            plural = "" if self.images == 1 else "s"
            notes.append(f"{self.images} image{plural}: AP is uncertain")
        if self.failed:
            name, reason = self.failed[0]
            total = self.images + len(self.failed)
            notes.append(
                f"not counted: {len(self.failed)} of {total} images, first {name}: {reason}"
            )
        if self.unknown_classes:
            names = some(self.unknown_classes)
            notes.append(f"not counted: classes unknown to the model: {names}")
        if self.renamed_classes:
            notes.append(f"spelled differently, taken as one: {some(self.renamed_classes)}")
        if self.dropped_nonfinite:
            notes.append(f"{self.dropped_nonfinite} anchors gave NaN or infinity and were left out")
        return [*notes, *self.damage, *self.remarks]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values, without the curves; NaN becomes None."""
        f1, conf = self.best_f1()
        return {
            "options": dict(self.options),
            **{name: or_none(getattr(self, name)) for name in NUMBERS},
            "f1": or_none(f1),
            "conf": or_none(conf),
            "per_class": {
                name: {
                    key: value if isinstance(value, int) else or_none(value)
                    for key, value in one._asdict().items()
                }
                for name, one in self.per_class.items()
            },
            "confusion": {
                "conf": CONFUSION_CONF,
                "iou": 0.5,
                "names": [*self.per_class, BACKGROUND],
                "counts": self.confusion.tolist(),
            },
            "images": self.images,
            "failed": [{"file_name": name, "reason": reason} for name, reason in self.failed],
            "unknown_classes": list(self.unknown_classes),
            "renamed_classes": list(self.renamed_classes),
            "dropped_nonfinite": self.dropped_nonfinite,
            "notes": self.notes(),
            "warnings": self.warnings(),
        }


def percent(value: float) -> str:
    """Return a share as a percentage with one digit, "-" for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def at_confidence(f1: float, conf: float) -> str:
    """Return an F1 and its confidence, as `EvalResult.best_f1` gives them, for a person."""
    return percent(f1) if math.isnan(conf) else f"{percent(f1)} at {conf:.2f}"


def or_none(value: float) -> float | None:
    """Return what JSON can hold: None for NaN."""
    return None if math.isnan(value) else value


def _row(name: str, one: ClassResult) -> str:
    conf = "-" if math.isnan(one.conf) else f"{one.conf:.2f}"
    numbers = "".join(f"{percent(value):>7}" for value in one[:3])
    return f"{name}{numbers}{one.objects:9}{one.images:8}{percent(one.f1):>9}{conf:>9}"
