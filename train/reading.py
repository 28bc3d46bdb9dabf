"""What the readers of annotation formats share."""

from __future__ import annotations

import io
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rdlite.errors import ImageError
from rdlite.evaluate.cocofile import EMPTY, coco_faults
from rdlite.evaluate.dataset import DataError, Faults, ImageStore, refuse
from rdlite.imageheader import read_header

LeftOut = dict[str, list[str]]
"""What could not be used: for each reason, the files or places it concerns."""


def _by_kind() -> dict[str, list[str]]:
    return defaultdict(list)


@dataclass(slots=True)
class Findings:
    """What a reader comes across on its way.

    Attributes:
        faults: What makes the set unusable.
        left_out: What is not used.
        notes: What is used, but not as it is written.
    """

    faults: Faults = field(default_factory=_by_kind)
    left_out: LeftOut = field(default_factory=_by_kind)
    notes: LeftOut = field(default_factory=_by_kind)


HEADER_BYTES = 1 << 16
"""Enough for the header of nearly every image; the others are read whole."""

_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)


def make_content(
    path: Path,
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    categories: list[dict[str, Any]],
    found: Findings,
) -> dict[str, Any]:
    """Put the content of a COCO file together; ids of annotations count from 1.

    Raises:
        DataError: Anything is wrong with it, or was while it was read.
    """
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
        annotation["area"] = max(annotation["bbox"][2], 0.0) * max(annotation["bbox"][3], 0.0)
    left_out = {reason: names for reason, names in found.left_out.items() if names}
    content = {
        "images": images,
        "annotations": annotations,
        "categories": categories,
        "left_out": left_out,
        "notes": dict(found.notes),
    }
    faults = coco_faults(content)
    if found.faults:  # what could not be read may have held them
        faults.pop(EMPTY, None)
    elif left_out and not images:
        reasons = ", ".join(f"{reason}: {len(names)}" for reason, names in left_out.items())
        first = next(iter(left_out.values()))[0]
        faults = {"no image left": [f"no image is left; {reasons}; the first, {first}"]}
    refuse(path, found.faults | faults)
    return content


def shown(file: Path, base: Path) -> str:
    """Name a file as seen from the set that it belongs to."""
    folder = Path(os.path.abspath(base if base.is_dir() else base.parent))
    whole = Path(os.path.abspath(file))
    return (whole.relative_to(folder) if whole.is_relative_to(folder) else file).as_posix()


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, with or without byte order mark.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}); mend it") from error


def upright_size(store: ImageStore, name: str) -> tuple[int, int]:
    """Read (width, height) in pixels of an image after its EXIF rotation, without decoding it.

    Only the EXIF orientation of JPEG is read; in other formats it is rare, and a size that differs
    is found when the image is decoded.

    Raises:
        ImageError: The image is missing or its header is damaged.
    """
    head = store.read(name, size=HEADER_BYTES)
    try:
        return _size(head)
    except ImageError:
        if len(head) < HEADER_BYTES:
            raise
    return _size(store.read(name))


def _size(data: bytes) -> tuple[int, int]:
    header = read_header(data)
    if header.format == "jpeg" and _orientation(data) in _QUARTER_TURNS:
        return header.height, header.width
    return header.width, header.height


def _orientation(data: bytes) -> int:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, TypeError) as error:
        raise ImageError(f"the JPEG header is damaged ({error})") from error
