"""Annotations as arrays, for training."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rdlite.dataset import DataError, is_ignored
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
        empty_boxes: How many boxes had no width or height and were left out.
        outside_boxes: How many boxes lay wholly outside their image and were left out.
        clipped_boxes: How many boxes reached more than a pixel beyond their image and were clipped.
        left_out: Files that could not be used, by reason; see `train.formats.read_annotations`.
    """

    path: Path
    images: tuple[CocoImage, ...]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    empty_boxes: int = 0
    outside_boxes: int = 0
    clipped_boxes: int = 0
    left_out: LeftOut = field(default_factory=dict)

    @property
    def dropped_boxes(self) -> int:
        """How many boxes had no area inside their image and were left out."""
        return self.empty_boxes + self.outside_boxes

    def sha256(self) -> str:
        """Digest of everything learned from: files, boxes, flags, classes, in their order."""
        digest = hashlib.sha256(json.dumps([self.names, self.category_ids]).encode())
        for image in self.images:
            digest.update(image.file_name.encode())
            for part in (image.targets.boxes, image.targets.labels, image.targets.ignore):
                digest.update(part.tobytes())
        return digest.hexdigest()


def load_coco(path: str | Path, images: str | Path | None = None) -> CocoSet:
    """Read annotations for training, in any format that `train.formats` reads.

    Boxes are clipped to their image; those without area are dropped and counted. "iscrowd"
    or "ignore" mark ignore regions; "score" is the annotation's confidence, 1 when absent.

    Args:
        path: COCO json, VOC or YOLO annotations.
        images: Folder of the images; COCO does not need it.

    Raises:
        DataError: As `train.formats.read_annotations`, or no box is left to learn from.
    """
    content = read_annotations(path, images)
    label_of = {category["id"]: k + 1 for k, category in enumerate(content["categories"])}
    by_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    entries, counts = [], np.zeros(3, np.int64)
    for image in content["images"]:
        size = (int(image["width"]), int(image["height"]))
        targets, faults = _targets(by_image[image["id"]], size, label_of)
        entries.append(CocoImage(image["file_name"], size, targets))
        counts += faults
    empty, outside, clipped = counts.tolist()
    if all(entry.targets.ignore.all() for entry in entries):
        raise DataError(
            f"{path} has no box to learn from: of {len(content['annotations'])} annotations "
            f"{empty} have no area and {outside} lie outside their image, others are ignore regions"
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
    )


def _targets(
    annotations: list[dict[str, Any]], size: tuple[int, int], label_of: dict[Any, int]
) -> tuple[Targets, np.ndarray]:
    """Return the targets, and how many boxes were empty, outside and clipped, int64 (3,)."""
    stated = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
    empty = np.any(stated[:, 2:] <= 0, axis=1)
    stated[:, 2:] += stated[:, :2]
    boxes = stated.clip(0, np.array([*size, *size], np.float32))
    targets = Targets(
        boxes,
        np.array([label_of[a["category_id"]] for a in annotations], np.int64),
        np.array([is_ignored(a) for a in annotations], bool),
        np.array([a.get("score", 1.0) for a in annotations], np.float32),
    )
    kept = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    # Less than a pixel is how tools round.
    clipped = kept & np.any(np.abs(stated - boxes) > 1, axis=1)
    faults = np.array([empty.sum(), (~kept & ~empty).sum(), clipped.sum()])
    return targets.keep(kept, boxes), faults
