"""Annotations as arrays, for training."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rdlite.evaluate.cocofile import is_ignored
from rdlite.evaluate.dataset import DataError
from train.augment import Targets
from train.formats import read_annotations, split_path
from train.reading import LeftOut


@dataclass(frozen=True, slots=True, eq=False)
class CocoImage:
    """One annotated image: its file name, (width, height) in pixels, and targets in pixels."""

    file_name: str
    size: tuple[int, int]
    targets: Targets


@dataclass(frozen=True, slots=True, eq=False)
class CocoSet:
    """An annotated set as arrays.

    Attributes:
        path: The annotation file or folder.
        images: Its images, in the file's order.
        names: Class names; label k (1..C) is names[k - 1], 0 is the background.
        category_ids: COCO category id of each class, in the same order.
        empty_boxes: Where the boxes are that had no width or height and were left out.
        outside_boxes: Where those are that lay wholly outside their image and were left out.
        clipped_boxes: Where those are that reached more than a pixel beyond their image and were
            clipped.
        left_out: Files that could not be used, by reason; see `train.formats.read_annotations`.
        notes: What is used, but not as it is written, by reason.
    """

    path: Path
    images: tuple[CocoImage, ...]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    empty_boxes: tuple[str, ...] = ()
    outside_boxes: tuple[str, ...] = ()
    clipped_boxes: tuple[str, ...] = ()
    left_out: LeftOut = field(default_factory=dict)
    notes: LeftOut = field(default_factory=dict)

    @property
    def dropped_boxes(self) -> int:
        """How many boxes had no area inside their image and were left out."""
        return len(self.empty_boxes) + len(self.outside_boxes)

    def sha256(self) -> str:
        """Digest of everything learned from: files, boxes, flags, classes, in their order."""
        digest = hashlib.sha256(json.dumps([self.names, self.category_ids]).encode())
        for image in self.images:
            digest.update(image.file_name.encode())
            for part in (image.targets.boxes, image.targets.labels, image.targets.ignore):
                digest.update(part.tobytes())
        return digest.hexdigest()


def load_coco(
    path: str | Path,
    images: str | Path | None = None,
    *,
    default_split: str = "train",
    min_score: float | None = None,
) -> CocoSet:
    """Read annotations for training, in any format that `train.formats` reads.

    Boxes are clipped to their image; those without area are dropped and counted. "iscrowd"
    or "ignore" mark ignore regions; "score" is the annotation's confidence, 1 when absent.

    Args:
        path: COCO json, VOC or YOLO annotations.
        images: Folder of the images; COCO does not need it.
        default_split: As for `train.formats.read_annotations`.
        min_score: From which score on a box that carries one is an object, and below which an
            ignore region; None leaves it to "iscrowd" and "ignore".

    Raises:
        DataError: As `train.formats.read_annotations`, or no box is left to learn from.
    """
    content = read_annotations(path, images, default_split=default_split)
    label_of = {category["id"]: k + 1 for k, category in enumerate(content["categories"])}
    by_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    entries = []
    faulty: tuple[list[str], ...] = ([], [], [])
    for image in content["images"]:
        size = (int(image["width"]), int(image["height"]))
        annotated = by_image[image["id"]]
        targets, masks = _targets(annotated, size, label_of, min_score)
        entries.append(CocoImage(image["file_name"], size, targets))
        for places, mask in zip(faulty, masks, strict=True):
            places += [_place(image["file_name"], annotated[k]) for k in np.flatnonzero(mask)]
    empty, outside, clipped = map(tuple, faulty)
    if all(entry.targets.ignore.all() for entry in entries):
        raise DataError(
            f"{path} has no box to learn from (annotations: {len(content['annotations'])}, without "
            f"width or height: {len(empty)}, outside their image: {len(outside)}, the others "
            "ignore regions); add boxes"
        )
    return CocoSet(
        path=split_path(path)[0],
        images=tuple(entries),
        names=tuple(category["name"] for category in content["categories"]),
        category_ids=tuple(category["id"] for category in content["categories"]),
        empty_boxes=empty,
        outside_boxes=outside,
        clipped_boxes=clipped,
        left_out=content.get("left_out", {}),
        notes=content.get("notes", {}),
    )


def is_region(annotation: dict[str, Any], min_score: float | None) -> bool:
    """Whether a box is an ignore region; arguments as for `load_coco`."""
    if min_score is None or "score" not in annotation:
        return is_ignored(annotation)
    return bool(annotation["score"] < min_score)


def _place(file_name: str, annotation: dict[str, Any]) -> str:
    """Where a user finds an annotation."""
    return str(annotation.get("source") or f"{file_name}, annotation {annotation.get('id', '?')}")


def _targets(
    annotations: list[dict[str, Any]],
    size: tuple[int, int],
    label_of: dict[Any, int],
    min_score: float | None,
) -> tuple[Targets, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the targets, and which boxes were empty, outside and clipped, bool (n,) each."""
    stated = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
    empty = np.any(stated[:, 2:] <= 0, axis=1)
    stated[:, 2:] += stated[:, :2]
    boxes = stated.clip(0, np.array([*size, *size], np.float32))
    targets = Targets(
        boxes,
        np.array([label_of[a["category_id"]] for a in annotations], np.int64),
        np.array([is_region(a, min_score) for a in annotations], bool),
        np.array([a.get("score", 1.0) for a in annotations], np.float32),
    )
    kept = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    # Less than a pixel is how tools round.
    clipped = kept & np.any(np.abs(stated - boxes) > 1, axis=1)
    return targets.keep(kept, boxes), (empty, ~kept & ~empty, clipped)
