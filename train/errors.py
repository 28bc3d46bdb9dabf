"""`python -m train errors`: what a detector gets wrong, as one page and as numbers."""

from __future__ import annotations

import json
from pathlib import Path

from rdlite import Detector
from rdlite.errors import RdliteError
from train.errors_measure import Measured, measure, to_dict
from train.errors_page import conclusion, errors_page
from train.report import open_to_measure
from train.sets import Sets


def write_errors(
    weights: str,
    sets: Sets,
    *,
    classes: str | None,
    nms: str,
    conf: float,
    out: str,
    worst: int,
) -> list[Measured]:
    """Find what a detector gets wrong, and write `errors.html` and `errors.json`.

    Args:
        weights: As `train.report.evaluate_sets`. So are `sets`, `classes`, `nms` and `conf`.
        sets: See `weights`.
        classes: See `weights`.
        nms: See `weights`.
        conf: See `weights`.
        out: Folder for both files.
        worst: How many images of each set the page shows.

    Raises:
        RdliteError: As `train.report.evaluate_sets`.
    """
    with open_to_measure(weights, sets, classes) as (model, opened):
        detector = Detector(model, nms=nms)
        measured = [measure(detector, one, conf) for one in opened]
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = errors_page(weights, measured, worst)
        (folder / "errors.html").write_text(page, encoding="utf-8")
        numbers = json.dumps({one.name: to_dict(one) for one in measured}, indent=1)
        (folder / "errors.json").write_text(numbers, encoding="utf-8")
    except OSError as error:
        raise RdliteError(f"{folder} cannot be written to ({error.strerror})") from error
    print(conclusion(measured))
    print(folder / "errors.html")
    return measured
