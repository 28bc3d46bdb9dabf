"""What `tiny_model` finds in `squares`, and how to look at what was found."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rdlite import Detections

PERSON, CAR = (16, 16, 32, 32), (64, 32, 80, 48)


def found_in(detections: Detections) -> dict[str, tuple[int, ...]]:
    """Class name to box, in whole pixels."""
    return {one.name: tuple(round(side) for side in one.xyxy) for one in detections}


def summary_of(printed: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `rdlite annotate --json` says about its one video."""
    (summary,) = json.loads(printed.readouterr().out)["videos"]
    return summary
