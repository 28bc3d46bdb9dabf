"""A COCO annotation file as arrays, for training."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rdlite.dataset import is_ignored, read_coco
from train.augment import Targets


@dataclass(frozen=True, slots=True, eq=False)
class CocoImage:
    """One annotated image: its file name, (width, height) in pixels, and targets in pixels."""

    file_name: str
    size: tuple[int, int]
    targets: Targets


@dataclass(frozen=True, slots=True, eq=False)
class CocoSet:
    """A COCO annotation file as arrays.

    Attributes:
        path: The file.
        images: Its images, in the file's order.
        names: Class names; label k (1..C) is names[k - 1], 0 is the background.
        category_ids: COCO category id of each class, in the same order.
        dropped_boxes: How many boxes had no area inside their image and were left out.
    """

    path: Path
    images: tuple[CocoImage, ...]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    dropped_boxes: int

    def sha256(self) -> str:
        """Digest of everything learned from: files, boxes, flags, classes, in their order."""
        digest = hashlib.sha256(json.dumps([self.names, self.category_ids]).encode())
        for image in self.images:
            digest.update(image.file_name.encode())
            for part in (image.targets.boxes, image.targets.labels, image.targets.ignore):
                digest.update(part.tobytes())
        return digest.hexdigest()


def load_coco(path: str | Path) -> CocoSet:
    """Read a COCO annotation file for training.

    Boxes are clipped to their image; those without area are dropped and counted. "iscrowd"
    or "ignore" mark ignore regions; "score" is the annotation's confidence, 1 when absent.

    Raises:
        DataError: As `rdlite.dataset.read_coco`.
    """
    path = Path(path)
    content = read_coco(path)
    label_of = {category["id"]: k + 1 for k, category in enumerate(content["categories"])}
    by_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    images = []
    for image in content["images"]:
        size = (int(image["width"]), int(image["height"]))
        targets = _targets(by_image[image["id"]], size, label_of)
        images.append(CocoImage(image["file_name"], size, targets))
    return CocoSet(
        path=path,
        images=tuple(images),
        names=tuple(category["name"] for category in content["categories"]),
        category_ids=tuple(category["id"] for category in content["categories"]),
        dropped_boxes=len(content["annotations"]) - sum(len(i.targets.boxes) for i in images),
    )


def _targets(
    annotations: list[dict[str, Any]], size: tuple[int, int], label_of: dict[Any, int]
) -> Targets:
    boxes = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes.clip(0, np.array([*size, *size], np.float32))
    targets = Targets(
        boxes,
        np.array([label_of[a["category_id"]] for a in annotations], np.int64),
        np.array([is_ignored(a) for a in annotations], bool),
        np.array([a.get("score", 1.0) for a in annotations], np.float32),
    )
    return targets.keep(np.all(boxes[:, 2:] > boxes[:, :2], axis=1), boxes)
