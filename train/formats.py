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

from rdlite.dataset import DataError, ImageStore, check_coco, read_coco
from train.voc import read_voc
from train.yolo import YAML, find_yaml, read_yolo

COCO, VOC, YOLO = "COCO json", "Pascal VOC XML", "YOLO txt"

RULES = (
    ("a file that cannot be read as its format; a list or key that is missing", "stops", 1),
    ("no images, no classes, or no box left to learn from", "stops", 1),
    ("an image or annotation id, file name, class id or class name that occurs twice", "stops", 1),
    ("a class without a name; an annotation of an unknown class or image", "stops", 1),
    ("a coordinate, size, score or area that is not a finite number", "stops", 1),
    ("a folder of images that does not exist, a compressed shard, no readable image", "stops", 1),
    ("an image that is missing, in two shards, damaged, or not of the stated size", "left out", 3),
    ("a box without width or height, or wholly outside its image", "left out", 3),
    ("an XML or txt file whose image is missing or not clear", "left out", 3),
    ("an object without a box", "left out", 3),
    ("an image that is also in the validation set, byte for byte", "used; AP is too high", 3),
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


def read_annotations(data: str | Path, images: str | Path | None = None) -> dict[str, Any]:
    """Read annotations of any format as the content of a COCO file.

    Args:
        data: A COCO json; a folder of VOC XML files or the root of a VOC development kit; a
            data.yaml, its folder, or a folder of YOLO label files. ":NAME" at its end picks a
            split: a list in `ImageSets/Main`, or a key of data.yaml, where "train" is the default.
        images: Folder of the images or of tar shards, or one tar; COCO does not need it.

    Returns:
        "images", "annotations" and "categories" as in COCO, checked by
        `rdlite.dataset.check_coco`; and, from VOC and YOLO, "left_out", which lists the files that
        could not be used by reason.

    Raises:
        DataError: Nothing readable is there, or its content is wrong; what is fatal and what is
            left out and counted is listed in `RULES`.
    """
    path, split = split_path(data)
    kind = format_of(data)
    if kind == COCO:
        if split:
            raise DataError(f"{data}: a COCO json has no splits; give the file of the split")
        return read_coco(path)
    if images is None:
        raise DataError(f"{data} is {kind}, which needs the images as well; give their folder")
    content = (read_voc if kind == VOC else read_yolo)(path, split, ImageStore(images))
    check_coco(content, path)
    return content


def split_path(data: str | Path) -> tuple[Path, str | None]:
    """Take "PATH:SPLIT" apart; a path that exists as it is has no split."""
    head, _, split = str(data).rpartition(":")
    if not head or os.path.exists(data) or not os.path.exists(head):
        return Path(data), None
    return Path(head), split


def format_of(data: str | Path) -> str:
    """Tell the format of annotations, one of `COCO`, `VOC` and `YOLO`, by the names of the files.

    Raises:
        DataError: A folder holds annotations of no known format.
    """
    path, _ = split_path(data)
    if path.suffix in YAML:
        return YOLO
    if not path.is_dir():
        return COCO  # its reader says what is wrong with anything else
    if (path / "Annotations").is_dir() or any(path.rglob("*.xml")):
        return VOC
    if find_yaml(path) or any(path.rglob("*.txt")):
        return YOLO
    raise DataError(
        f"{path} holds no annotations; give a COCO json, a folder of VOC XML files, or a YOLO "
        "folder with data.yaml or label files"
    )


def write_coco(content: Mapping[str, Any], path: str | Path) -> None:
    """Write what `read_annotations` returned as a COCO json, whole or not at all.

    Args:
        content: The annotations.
        path: The file, overwritten if it exists.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(json.dumps(content), encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
