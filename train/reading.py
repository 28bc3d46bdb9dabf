"""What the readers of annotation formats share."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdlite.dataset import DataError, ImageStore
from rdlite.errors import ImageError
from rdlite.imageheader import read_header

LeftOut = dict[str, list[str]]
"""What a reader could not use: for each reason, the files it concerns."""

HEADER_BYTES = 1 << 16
"""Enough for the header of nearly every image; the others are read whole."""

_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)


def make_content(
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    categories: list[dict[str, Any]],
    left_out: LeftOut,
) -> dict[str, Any]:
    """Put the content of a COCO file together; ids of annotations count from 1."""
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
        annotation["area"] = max(annotation["bbox"][2], 0.0) * max(annotation["bbox"][3], 0.0)
    return {
        "images": images,
        "annotations": annotations,
        "categories": categories,
        "left_out": {reason: names for reason, names in left_out.items() if names},
    }


def refuse(faults: Sequence[str]) -> None:
    """Raise the first fault and say how many others there are.

    Raises:
        DataError: There is at least one.
    """
    if faults:
        more = f" ({len(faults) - 1} more faults like it)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}")


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
