"""What a notebook shows: pictures with their boxes, and detections as a table with a sketch."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rdlite.annotate import class_color, draw
from rdlite.errors import OptionError
from rdlite.image import Bgr, ImageSource, load
from rdlite.results import Detections
from rdlite.storage.partial import write_whole

__all__ = ["Picture", "plot"]

_SHOWN: Final = 1280
"""Longest side of a picture in a notebook, pixels: a notebook keeps all that it shows."""

_ROWS: Final = 30
"""Most objects in the table of a notebook."""

_SKETCH: Final = 360, 270
"""Most width and height of the sketch, CSS pixels."""

ENDINGS: Final = (".png", ".jpg", ".jpeg", ".webp")
"""What the name of a saved picture may end in."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Picture:
    """A picture that a notebook shows and that can be saved.

    Attributes:
        image: uint8 `(H, W, 3)` BGR.
    """

    image: Bgr

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"<Picture {width}x{height}>"

    def _repr_png_(self) -> bytes:
        import cv2

        scale = _SHOWN / max(self.image.shape[:2])
        if scale >= 1:
            return self.encode(".png")
        small = cv2.resize(self.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return Picture(np.asarray(small, np.uint8)).encode(".png")

    def encode(self, ending: str) -> bytes:
        """Return the bytes of an image file.

        Args:
            ending: One of `ENDINGS`, which chooses the format.

        Raises:
            OptionError: It is another ending, or the format cannot hold a picture of this size.
        """
        import cv2

        if ending.lower() not in ENDINGS:
            raise OptionError(f"a picture's name must end in {', '.join(ENDINGS)}, got {ending!r}")
        try:
            good, encoded = cv2.imencode(ending, self.image)
        except cv2.error:
            good = False
        if not good:
            height, width = self.image.shape[:2]
            raise OptionError(f"{width}x{height} pixels are too many for {ending}; use .png")
        return encoded.tobytes()

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write an image file; it appears under its name only when it is whole.

        Args:
            path: The file; its ending, one of `ENDINGS`, chooses the format.
            overwrite: Replace a file that exists.

        Raises:
            OptionError: The file exists and `overwrite` is False, or cannot be written.
        """
        write_whole(path, self.encode(os.path.splitext(path)[1]), overwrite=overwrite)


def plot(image: ImageSource, detections: Detections, *, color: str = "bgr") -> Picture:
    """Return the picture with a box and a label for every object; see `Detections.plot`."""
    pixels = load(image, color=color)
    height, width = pixels.shape[:2]
    if (width, height) != tuple(detections.image_size):
        wanted = "x".join(map(str, detections.image_size))
        raise OptionError(
            f"the detections are of a picture of {wanted} pixels, got {width}x{height}; "
            "give the picture that they were found in"
        )
    return Picture(draw(pixels, detections))


def detections_html(detections: Detections) -> str:
    """Return a sketch of the boxes beside a table of the best objects, as HTML.

    Without a style sheet or a script, which notebooks remove from files of others.
    """
    shown = detections[:_ROWS]
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">'
        f"{_sketch(shown)}{_table(shown, _caption(detections))}</div>"
    )


def _caption(detections: Detections) -> str:
    rest = f"; the best {_ROWS} of {len(detections)} are shown" if len(detections) > _ROWS else ""
    lost = detections.dropped_nonfinite
    dropped = f"; {lost} boxes that were not finite were dropped" if lost else ""
    return f"{repr(detections)[1:-1]}{rest}{dropped}"


def _sketch(detections: Detections) -> str:
    width, height = detections.image_size
    if not (width and height):
        return ""
    scale = min(_SKETCH[0] / width, _SKETCH[1] / height)
    boxes = []
    for number, one in enumerate(detections, 1):
        x1, y1, x2, y2 = (round(value * scale, 1) for value in one.xyxy)
        blue, green, red = class_color(one.class_id)
        place = f'x="{x1}" y="{y1}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}" fill="none"'
        boxes.append(
            f"<g><title>{number}: {html.escape(one.name)} {one.confidence:.2f}</title>"
            # A white edge keeps dark colours apart from the ground.
            f'<rect {place} stroke="#fff" stroke-width="3"/>'
            f'<rect {place} stroke="rgb({red},{green},{blue})" stroke-width="2"/>'
            f'<text x="{x1 + 4}" y="{y1 + 13}" font-size="11" font-family="sans-serif" '
            f'fill="#fff">{number}</text></g>'
        )
    size = f'width="{width * scale:.0f}" height="{height * scale:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size} '
        f'aria-label="the boxes in the picture, numbered as in the table">'
        f'<rect width="100%" height="100%" fill="#222"/>{"".join(boxes)}</svg>'
    )


def _table(detections: Detections, caption: str) -> str:
    rows = [
        (number, one.name, f"{one.confidence:.2f}", *(f"{value:.1f}" for value in one.xyxy))
        for number, one in enumerate(detections, 1)
    ]
    return table(caption, ("", "class", "score", "x1", "y1", "x2", "y2"), rows)


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return an HTML table; whatever is in it stays text."""

    def cells(tag: str, values: Sequence[object]) -> str:
        return "".join(f"<{tag}>{html.escape(str(value))}</{tag[:2]}>" for value in values)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<table><caption style="text-align:left">{html.escape(caption)}</caption>'
        f"<thead><tr>{cells('th scope=col', heads)}</tr></thead><tbody>{body}</tbody></table>"
    )
