"""The sets that a detector is measured on, opened and checked before anything slow is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rdlite.errors import ImageError, OptionError
from rdlite.evaluate.classnames import share_classes, some
from rdlite.evaluate.dataset import DataError, ImageStore
from train.formats import COCO, format_of, read_annotations, split_path, write_coco

Sets = Sequence[Sequence[str]]
"""Pairs of annotations in any format and the folder of their images."""


class EvalSet(NamedTuple):
    """A set that can be measured on.

    Attributes:
        name: What results call it.
        annotations: COCO json.
        images: Folder of its images or of tar shards, or one tar.
    """

    name: str
    annotations: Path
    images: str


def open_sets(sets: Sets, known: Sequence[str], folder: Path) -> list[EvalSet]:
    """Read and check sets of any format; prints which of their files cannot be used.

    Args:
        sets: As `train.formats.read_annotations` takes them; of a data.yaml the key "val", unless
            another is named.
        known: Classes of the detector.
        folder: Gets a COCO json of every set that is none.

    Raises:
        OptionError: Two sets have one name.
        DataError: A set is unusable: see `train.formats.read_annotations` and `check_set`.
    """
    names = [_name(annotations) for annotations, _ in sets]
    if len(set(names)) < len(names):
        raise OptionError(f"sets are told apart by name, got {', '.join(names)}; rename a file")
    return [
        EvalSet(name, _open(name, annotations, images, known, folder), images)
        for name, (annotations, images) in zip(names, sets, strict=True)
    ]


def check_set(
    content: Mapping[str, Any], images: str | Path, known: Sequence[str], source: str
) -> None:
    """Find out whether AP can be measured on a set.

    Args:
        content: A COCO file's.
        images: Folder of its images.
        known: Classes of the detector.
        source: What messages call the set.

    Raises:
        DataError: The set annotates no known class, or none of its images is there.
    """
    share_classes(content, known, source)
    store, reasons = ImageStore(images), []
    for image in content["images"]:
        try:
            store.read(image["file_name"], size=1)
        except ImageError as error:
            reasons.append(f"{image['file_name']}: {error}")
        else:
            return
    raise DataError(
        f"none of the {len(reasons)} images of {source} is in {images} "
        f"(the first, {reasons[0]}); give the folder that holds them"
    )


def _name(annotations: str) -> str:
    path, split = split_path(annotations)
    stem = path.resolve().name if path.is_dir() else path.stem
    return f"{stem}-{split}" if split else stem


def _open(name: str, annotations: str, images: str, known: Sequence[str], folder: Path) -> Path:
    content = read_annotations(annotations, images, default_split="val")
    check_set(content, images, known, annotations)
    if format_of(annotations) == COCO:
        return Path(annotations)
    for reason, files in content["left_out"].items():
        print(f"{name}: not counted: {len(files)} {reason}: {some(files, most=3)}")
    for reason, files in content["notes"].items():
        print(f"{name}: {len(files)} {reason}: {some(files, most=3)}")
    path = folder / f"{name}.json"
    write_coco(content, path)
    return path
