"""The images on which a run measures AP: a set of its own, or a share held out of the training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from train.coco import CocoSet
from train.config import TrainConfig
from train.formats import read_annotations, write_coco

FEWEST = 10
"""Sets smaller than this hold nothing out: an image more to learn from is worth more."""


def held_out(coco: CocoSet, share: float) -> frozenset[str]:
    """File names of the images that are not trained on.

    The choice depends on the set alone, so runs with different seeds are measured on the same
    images.

    Args:
        coco: The annotations.
        share: Of its images, 0 to 1.
    """
    names = sorted(image.file_name for image in coco.images)
    if share == 0 or len(names) < FEWEST:
        return frozenset()
    count = max(1, round(share * len(names)))
    chosen = np.random.default_rng(0).permutation(len(names))[:count]
    return frozenset(names[i] for i in chosen)


def holdout_share(config: TrainConfig) -> float:
    """The share that a run holds out: none when it is given a set to validate on."""
    return 0.0 if config.val else config.holdout


def write_validation(config: TrainConfig, coco: CocoSet) -> tuple[str, str] | None:
    """Write `val.json` into the run's folder.

    Args:
        config: Settings of the run.
        coco: Its training annotations.

    Returns:
        COCO json and the folder of its images; None when nothing is held out.

    Raises:
        DataError: The validation annotations are unusable.
    """
    path = Path(config.out) / "val.json"
    if config.val:
        images = config.val_images or config.images
        write_coco(read_annotations(config.val, images), path)
        return str(path), images
    names = held_out(coco, config.holdout)
    if not names:
        return None
    content = read_annotations(config.data, config.images)
    kept = [image for image in content["images"] if image["file_name"] in names]
    ids = {image["id"] for image in kept}
    boxes = [a for a in content["annotations"] if a["image_id"] in ids]
    write_coco(content | {"images": kept, "annotations": boxes}, path)
    return str(path), config.images
