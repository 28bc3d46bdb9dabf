"""Annotations in, whatever their format: COCO json, Pascal VOC XML or YOLO txt.

VOC and YOLO are read by `train.voc` and `train.yolo` with the standard library and PyYAML, not by
supervision's `DetectionDataset`: its VOC reader decodes every image, forgets "difficult" and
numbers classes by first appearance; both its readers look into one folder only, never into tar
shards, stop at the first bad file and say nothing of annotations whose image is missing.

What is wrong with data is treated alike in every format and by every command; `RULES` is the table.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdlite.evaluate.cocofile import read_coco
from rdlite.evaluate.dataset import DataError, ImageStore
from rdlite.storage.partial import write_whole
from train.voc import read_voc
from train.yolo import YAML, find_yaml, read_yolo

COCO, VOC, YOLO = "COCO json", "Pascal VOC XML", "YOLO txt"

KINDS = (
    "a COCO json file, a folder of Pascal VOC XML files, or a YOLO data.yaml or folder of label "
    "files"
)
"""What is taken as annotations, for messages."""

RULES = (
    ("a file that cannot be read as its format; a list or key that is missing", "stops", 1),
    ("no images, no classes, or no box left to learn from", "stops", 1),
    ("an image or annotation id, file name, class id or class name that occurs twice", "stops", 1),
    ("a class without a name; an annotation of an unknown class or image", "stops", 1),
    ("a coordinate, size, score or area that is not a finite number", "stops", 1),
    ("a folder of images that does not exist, a compressed shard, no readable image", "stops", 1),
    ("the same file and split for training and for validation", "stops", 1),
    ("an image that is missing, in two shards, damaged, or not of the stated size", "left out", 3),
    ("a box without width or height, or wholly outside its image", "left out", 3),
    ("an XML or txt file whose image is missing or not clear", "left out", 3),
    ("an object without a box", "left out", 3),
    ("an image that is also in the validation set, byte for byte", "used; AP is too high", 3),
    ("a place in data.yaml that does not exist, but does from its own folder", "used", 0),
    ("a box that reaches more than a pixel beyond its image", "clipped", 0),
    ("a box that occurs twice", "used", 0),
    ("an image without objects", "used as background", 0),
    ("a file name that is also in the validation set", "used", 0),
    ("a class with fewer than 20 boxes", "used", 0),
    ("an image that the annotations do not list", "not used", 0),
)
"""What may be wrong with data, what happens then, and the exit code of `python -m train check`.

What stops is a `DataError` of every command; the rest is counted, in the first lines of a training
run and by `check`.
"""


def rules() -> str:
    """Return `RULES` as a Markdown table."""
    rows = [("what is wrong", "what happens", "exit code"), *RULES]
    first, second = (max(len(str(row[k])) for row in rows) for k in (0, 1))
    lines = [f"| {row[0]:{first}} | {row[1]:{second}} | {row[2]:<9} |" for row in rows]
    lines.insert(1, f"| {'-' * first} | {'-' * second} | {'-' * 9} |")
    return "\n".join(lines)


def read_annotations(
    data: str | Path, images: str | Path | None = None, *, default_split: str = "train"
) -> dict[str, Any]:
    """Read annotations of any format as the content of a COCO file.

    Args:
        data: A COCO json; a folder of VOC XML files or the root of a VOC development kit; a
            data.yaml, its folder, or a folder of YOLO label files. ":NAME" at its end picks a
            split: a list in `ImageSets/Main`, or a key of data.yaml.
        images: Folder of the images or of tar shards, or one tar; COCO does not need it.
        default_split: The key of data.yaml where `data` names none; "val" for validation.

    Returns:
        "images", "annotations" and "categories" as in COCO, checked by
        `rdlite.evaluate.cocofile.coco_faults`. From VOC and YOLO also "left_out" and "notes",
        what could not be used and what had to be understood otherwise than it is written, by
        reason; and the "source" of each annotation, its file and line or object.

    Raises:
        DataError: Nothing readable is there, or its content is wrong; what is fatal and what is
            left out and counted is listed in `RULES`. It names the first fault and carries all.
    """
    path, split = split_path(data)
    kind = format_of(data)
    if kind == COCO:
        if split:
            raise DataError(f"{data}: a COCO json has no splits; give the file of the split")
        return read_coco(path)
    if images is None:
        raise DataError(f"{data} is {kind}, which needs the images as well; give their folder")
    store = ImageStore(images)
    if kind == VOC:
        return read_voc(path, split, store)
    return read_yolo(path, split, store, default_split=default_split)


def split_path(data: str | Path) -> tuple[Path, str | None]:
    """Take "PATH:SPLIT" apart; a path that exists as it is has no split."""
    head, _, split = str(data).rpartition(":")
    if not head or os.path.exists(data) or not os.path.exists(head):
        return Path(data), None
    return Path(head), split


def format_of(data: str | Path) -> str:
    """Tell the format of annotations, one of `COCO`, `VOC` and `YOLO`, by the names of the files.

    Raises:
        DataError: There is nothing, or a folder with annotations of no known format.
    """
    path, _ = split_path(data)
    if not path.exists():
        raise DataError(f"there is nothing at {path}; give {KINDS}")
    if path.suffix in YAML:
        return YOLO
    if not path.is_dir():
        return COCO  # its reader says what is wrong with anything else
    if (path / "Annotations").is_dir() or any(path.rglob("*.xml")):
        return VOC
    if find_yaml(path) or any(path.rglob("*.txt")):
        return YOLO
    raise DataError(f"{path} holds no annotations; give {KINDS}")


def source_of(data: str | Path, *, default_split: str = "train") -> tuple[Path, str | None]:
    """Return the file or folder that is read, without links, and its split if it has splits.

    Args:
        data: As for `read_annotations`.
        default_split: As for `read_annotations`.
    """
    path, split = split_path(data)
    kind = format_of(data)
    if kind == VOC and path.is_dir() and path.name == "Annotations":
        path = path.parent
    settings = path if path.suffix in YAML else find_yaml(path) if kind == YOLO else None
    if settings:
        return settings.resolve(), split or default_split
    return path.resolve(), split


def refuse_same(data: str | Path, val: str | Path) -> None:
    """Refuse a validation set that is the training set.

    Raises:
        DataError: Both are the same file and split, or one of them is not there.
    """
    path, split = source_of(val, default_split="val")
    if source_of(data) == (path, split):
        which = f"the split {split!r} of {path}" if split else f"{path}"
        raise DataError(
            f"training and validation are both given {which}; give other images for validation, "
            "or none to hold out a share of those for training"
        )


def write_coco(content: Mapping[str, Any], path: str | Path) -> None:
    """Write what `read_annotations` returned as a COCO json, whole or not at all.

    Args:
        content: The annotations.
        path: The file, overwritten if it exists.
    """
    write_whole(path, json.dumps(content).encode(), overwrite=True)
