"""The images on which a run measures AP: a set of its own, or a share held out of the training."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from train.coco import CocoSet, is_region
from train.config import TrainConfig
from train.formats import read_annotations, refuse_same, write_coco
from train.sets import check_set

if TYPE_CHECKING:
    from train.data import DetectionDataset

FEWEST = 10
"""Sets smaller than this hold nothing out: an image more to learn from is worth more."""


def held_out(coco: CocoSet, share: float, *, readable: Collection[int]) -> frozenset[str]:
    """File names of the images that are not trained on.

    An image's place in the draw depends on its name alone. So runs with different seeds are
    measured on the same images, and few change sides when the set grows or its boxes change: a
    run that goes on from an earlier one is not measured on what that one has learned. Images with
    objects and images without give the same share.

    Args:
        coco: The annotations.
        share: Of its images, 0 to 1.
        readable: Indices of the images that can be read; the others are never chosen.
    """
    if share == 0 or len(readable) < FEWEST:
        return frozenset()
    order = sorted(readable, key=lambda i: _lot(coco.images[i].file_name))
    chosen: list[int] = []
    for wanted in (True, False):
        part = [i for i in order if bool((~coco.images[i].targets.ignore).any()) == wanted]
        count = round(share * len(part))
        count = max(count, 1) if wanted else count
        chosen += part[:count]
    return frozenset(coco.images[i].file_name for i in chosen)


def _lot(file_name: str) -> tuple[bytes, str]:
    return hashlib.sha256(os.fsencode(file_name)).digest(), file_name


def holdout_share(config: TrainConfig) -> float:
    """The share that a run holds out: none when it is given a set to validate on."""
    return 0.0 if config.val else config.holdout


def write_validation(config: TrainConfig, dataset: DetectionDataset) -> tuple[str, str] | None:
    """Write `val.json` into the run's folder, before the training that it will measure.

    Args:
        config: Settings of the run.
        dataset: Its training set.

    Returns:
        COCO json and the folder of its images; None when nothing is held out.

    Raises:
        DataError: The validation annotations are unusable: no image of theirs is there, or none
            of their classes is trained.
    """
    path = Path(config.out) / "val.json"
    if config.val:
        refuse_same(config.data, config.val)
        images = config.val_images or config.images
        content = read_annotations(config.val, images, default_split="val")
        check_set(content, images, dataset.coco.names, config.val)
        write_coco(content, path)
        return str(path), images
    if not dataset.held_out:
        return None
    content = read_annotations(config.data, config.images)
    kept = [image for image in content["images"] if image["file_name"] in dataset.held_out]
    ids = {image["id"] for image in kept}
    boxes = [a for a in content["annotations"] if a["image_id"] in ids]
    for one in boxes:  # right and wrong are what they are in training
        one["iscrowd"] = one["ignore"] = int(is_region(one, config.min_score))
    write_coco(content | {"images": kept, "annotations": boxes}, path)
    return str(path), config.images
