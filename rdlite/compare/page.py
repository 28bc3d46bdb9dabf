"""The comparison as one HTML page."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import numpy as np

from rdlite.compare.matching import IOU
from rdlite.compare.result import BINS, Agreement, ComparedPicture, Comparison
from rdlite.report.page import asset, json_block, make_page

_MOST_BYTES: Final = 18_000_000
"""Of the pictures and their boxes, as they stand in the page."""


def comparison_page(comparison: Comparison) -> str:
    """Return the page; see `Comparison.page`."""
    title = "Comparison of " + ", ".join(model.name for model in comparison.models)
    return make_page(
        title,
        asset("compare.html"),
        styles=[asset("page.css"), asset("compare.css")],
        scripts=[asset("compare.js")],
        blocks=[json_block("data", _data(comparison))],
    )


def _data(comparison: Comparison) -> dict[str, Any]:
    names: dict[str, int] = {}
    pictures, size = [], 0
    for one in comparison.pictures:
        entry = _picture(one, comparison.agreements, names)
        size += len(json.dumps(entry))
        if size > _MOST_BYTES:
            break
        pictures.append(entry)
    content = comparison.to_dict()
    agreements = zip(content["agreements"], comparison.agreements, strict=True)
    return {
        **content,
        "agreements": [{**entry, "scores": _cells(one)} for entry, one in agreements],
        "pictures": pictures,
        "classes": list(names),
        "bins": BINS,
        "iou": IOU,
    }


def _picture(
    one: ComparedPicture, agreements: tuple[Agreement, ...], names: dict[str, int]
) -> dict[str, Any]:
    """Return a picture with the boxes of each model; new names get the next numbers."""
    spellings = ({}, *(agreement.renamed for agreement in agreements))
    boxes = []
    for found, states, spelling in zip(one.found, one.states, spellings, strict=True):
        rows = []
        for box, state in zip(found, states.tolist(), strict=True):
            name = names.setdefault(spelling.get(box.name, box.name), len(names))
            corners = [round(value, 1) for value in box.xyxy]
            rows.append([*corners, round(box.confidence, 3), name, state])
        boxes.append(rows)
    width, height = one.found[0].image_size
    return {
        "name": one.name,
        "number": one.number,
        "difference": round(one.difference, 3),
        "width": width,
        "height": height,
        "jpeg": base64.b64encode(one.jpeg).decode("ascii"),
        "boxes": boxes,
    }


def _cells(agreement: Agreement) -> list[list[int]]:
    """Return row, column and count of the cells of `scores` that are not empty."""
    rows, columns = np.nonzero(agreement.scores)
    cells: list[list[int]] = np.stack([rows, columns, agreement.scores[rows, columns]], 1).tolist()
    return cells
