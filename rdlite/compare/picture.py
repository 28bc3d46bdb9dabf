"""The comparison as one picture: a row for each image, a column for each model."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from rdlite.annotate import draw_boxes
from rdlite.compare.result import ALONE, ComparedPicture, Comparison
from rdlite.errors import OptionError
from rdlite.image import Bgr, load
from rdlite.notebook import Picture
from rdlite.options import check_count
from rdlite.results import Detections
from rdlite.wording import count

_CELL: Final = 560  # width and most height of a cell, pixels
_GAP: Final = 8
_INK, _PAPER = (30, 30, 30), 255


def side_by_side(comparison: Comparison, rows: int) -> Picture:
    """Return the grid; see `Comparison.picture`."""
    shown = comparison.pictures[: check_count("rows", rows)]
    if not shown:
        raise OptionError("no picture was compared, so there is none to show")
    heads = [
        [model.name, f"{model.ms:.1f} ms per picture, {model.total:,} objects in all"]
        for model in comparison.models
    ]
    lines = [_line([_text(head, 0.75) for head in heads])]
    for one in shown:
        lines += [_line(_cells(one)), _line(_captions(one))]
    return Picture(np.concatenate(lines))


def _cells(one: ComparedPicture) -> list[Bgr]:
    picture = _fitted(load(one.jpeg))
    cells = []
    for found, states in zip(one.found, one.states, strict=True):
        cell = picture.copy()
        draw_boxes(cell, _scaled(found, picture), dashed=states == ALONE)
        cells.append(_centred(cell))
    return cells


def _captions(one: ComparedPicture) -> list[Bgr]:
    captions = [
        f"{count(len(states), 'object')}, {(states == ALONE).sum()} alone (dashed)"
        for states in one.states
    ]
    names = [one.name, *[""] * (len(captions) - 1)]
    return [_text(list(lines), 0.5) for lines in zip(captions, names, strict=True)]


def _fitted(picture: Bgr) -> Bgr:
    """Return the picture as large as fits into a cell."""
    import cv2

    scale = _CELL / max(picture.shape[:2])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height)), np.uint8)


def _scaled(found: Detections, picture: Bgr) -> Detections:
    """Return the boxes in pixels of another size of their picture."""
    height, width = picture.shape[:2]
    scale = np.array([width, height] * 2) / (found.image_size * 2)
    return Detections(
        (found.xyxy * scale).astype(np.float32),
        found.confidence,
        found.class_id,
        found.names,
        found.category_ids,
        (width, height),
    )


def _centred(picture: Bgr) -> Bgr:
    room = _CELL - picture.shape[1]
    return np.pad(picture, ((0, 0), (room // 2, room - room // 2), (0, 0)), constant_values=_PAPER)


def _text(lines: list[str], scale: float) -> Bgr:
    """Return lines of text, each made smaller until it fits; of very long ones the end stays."""
    import cv2

    font, step = cv2.FONT_HERSHEY_SIMPLEX, round(34 * scale)
    cell = np.full((step * len(lines) + _GAP, _CELL, 3), _PAPER, np.uint8)
    for number, line in enumerate(lines):
        line = line if len(line) <= 70 else f"...{line[-67:]}"
        width = cv2.getTextSize(line, font, scale, 1)[0][0]
        fit = scale * min(1.0, _CELL / max(1, width))
        place = (0, step * (number + 1) - round(8 * scale))
        cv2.putText(cell, line, place, font, fit, _INK, 1, cv2.LINE_AA)
    return cell


def _line(cells: list[npt.NDArray[np.uint8]]) -> Bgr:
    padded = [np.pad(cell, ((0, 0), (_GAP, _GAP), (0, 0)), constant_values=255) for cell in cells]
    return np.concatenate(padded, axis=1)
