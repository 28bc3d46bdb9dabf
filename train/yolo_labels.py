"""YOLO label files: a line for each object.

Format: a line is "class cx cy w h" in fractions of the image, with a sixth number its confidence;
"class x1 y1 x2 y2 x3 y3 ..." is an outline (segmentation, or the corners of a rotated box), and its
bounding box is taken (Ultralytics documentation, "Object Detection Datasets Overview").
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from rdlite.errors import ImageError
from rdlite.evaluate.dataset import DataError, ImageStore
from train.reading import Findings, read_text, shown, upright_size


class Classes(NamedTuple):
    """Class names by number, and how many numbers of key points follow a box."""

    names: dict[int, str]
    keypoints: int = 0


Pairs = dict[str, Path]
"""The label file of each image, by the image's name in the store; it may not exist."""


def read_labels(
    path: Path, pairs: Pairs, classes: Classes, store: ImageStore, found: Findings
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return images and annotations as a COCO file has them."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, label in pairs.items():
        try:
            width, height = upright_size(store, name)
        except ImageError as error:
            found.left_out["images whose size cannot be read"].append(f"{name}: {error}")
            continue
        images.append({"id": len(images) + 1, "file_name": name, "width": width, "height": height})
        for place, line in _lines(path, label, found):
            try:
                annotation = _annotation(line.split(), classes, width, height)
            except _LineError as error:
                found.faults[error.kind].append(f"{place}: {error}")
                continue
            annotations.append(annotation | {"image_id": len(images), "source": place})
    return images, annotations


def _lines(path: Path, label: Path, found: Findings) -> list[tuple[str, str]]:
    """Return place and text of the lines that are not blank; none where there is no file."""
    if not label.is_file():
        return []
    try:
        lines = read_text(label).splitlines()
    except DataError as error:
        found.faults["label files that cannot be read"].append(str(error))
        return []
    name = shown(label, path)
    return [(f"{name}, line {k}", line) for k, line in enumerate(lines, start=1) if line.strip()]


class _LineError(ValueError):
    """What is wrong with a line; `kind` names what others may have as well."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def _annotation(words: list[str], classes: Classes, width: int, height: int) -> dict[str, Any]:
    """Read one line.

    Raises:
        _LineError: It is none of the lines that YOLO has.
    """
    numbers = [_number(word) for word in words]
    if numbers[0] not in classes.names:
        raise _LineError(
            "lines of a class without a name",
            f"class {words[0]} has no name; names go from 0 to {max(classes.names)}",
        )
    values = numbers[1:]
    annotation: dict[str, Any] = {"category_id": int(numbers[0]), "iscrowd": 0}
    if len(values) == 5:
        annotation["score"] = values[4]
    if len(values) in (4, 5, 4 + classes.keypoints):
        x, y, w, h = values[0] - values[2] / 2, values[1] - values[3] / 2, *values[2:4]
    elif len(values) >= 6 and len(values) % 2 == 0:
        x, y = min(values[::2]), min(values[1::2])
        w, h = max(values[::2]) - x, max(values[1::2]) - y
    else:
        raise _LineError(
            "lines with too few or too many numbers",
            f"it has {len(words)} number{'s'[: len(words) != 1]}; wanted class cx cy w h, or an "
            "outline; correct it",
        )
    return annotation | {"bbox": [x * width, y * height, w * width, h * height]}


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise _LineError(
            "lines with a word that is not a number",
            f"{word!r} is not a number; wanted class cx cy w h in numbers; correct it",
        ) from None
    if not math.isfinite(value):
        raise _LineError(
            "lines with a number that is not finite", f"{word!r} is not finite; correct it"
        )
    return value
