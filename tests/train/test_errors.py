"""`python -m train errors`: the numbers behind the page, and the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from rdlite import Detector
from rdlite.evaluate import evaluate
from tests import cocosets
from train.__main__ import main
from train.errors_draw import COLORS, draw_pair
from train.errors_measure import (
    Measured,
    confusions,
    costs_of_images,
    fates,
    fates_by_size,
    gains,
    measure,
    sizes,
)
from train.sets import EvalSet

Printed = pytest.CaptureFixture[str]
SCENES: list[list[cocosets.Object]] = [
    [(1, 1, 1), (3, 4, 2)],
    [(2, 0, 0)],
    [(1, 5, 0)],
    [(3, 2, 2)],
]
ANNOTATED: list[list[cocosets.Object]] = [
    [(1, 1, 1), (3, 4, 2), (2, 0, 3)],  # there is no bicycle
    [(1, 0, 0)],  # it is one
    [(1, 5, 0)],
    [(3, 2, 2)],
]
"""What the set says that its images show."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A set that is wrong about one object of image 0 and one of image 1."""
    folder = tmp_path / "data <b>"
    folder.mkdir()
    annotations = [
        cocosets.annotation(k, one) for k, objects in enumerate(ANNOTATED) for one in objects
    ]
    return cocosets.write_set(folder, SCENES, annotations=annotations)


@pytest.fixture
def measured(data: Path, tiny_model: Path) -> Measured:
    return measure(Detector(tiny_model, nms="hard"), EvalSet("set", data, str(data.parent)), 0.01)


def test_the_numbers_are_those_of_evaluate(
    measured: Measured, data: Path, tiny_model: Path
) -> None:
    whole = evaluate(Detector(tiny_model, nms="hard"), data, data.parent)
    assert measured.result.to_dict() == whole.to_dict()
    assert np.nanmean(measured.errors.ap50) == pytest.approx(whole.ap50)


def test_each_object_has_a_fate_and_a_size(measured: Measured) -> None:
    assert fates(measured.errors).tolist() == [0, 0, 4, 3, 0, 0]
    width, height = measured.side
    assert sizes(measured) == pytest.approx(np.sqrt(16 * width / 96 * 16 * height / 64))
    counts = fates_by_size(measured)
    assert counts.sum(axis=0).tolist() == [4, 0, 0, 1, 1]
    assert np.count_nonzero(counts.sum(axis=1)) == 1


def test_confusions_and_images_that_cost_most_are_named(measured: Measured) -> None:
    (pair,) = [pair for pair in confusions(measured.errors) if pair.shown]
    assert (pair.true, pair.taken_for, pair.boxes) == ("person", "bicycle", 1)
    assert pair.gain > 0 and pair.gain == pytest.approx(gains(measured.errors)["class"])
    costs = costs_of_images(measured.errors)
    # Bicycles are never right: without the one of image 0 there is none to find.
    assert costs[1] > 0 and costs[2] == costs[3] == 0


def test_truth_is_drawn_left_and_finds_right(measured: Measured) -> None:
    pair = cv2.imdecode(np.frombuffer(draw_pair(measured, 1), np.uint8), cv2.IMREAD_COLOR)
    left, right = pair[:, : pair.shape[1] // 2], pair[:, -(pair.shape[1] // 2) :]
    color = np.array(COLORS["class"][::-1])
    for part in (left, right):
        assert (np.abs(part.astype(int) - color).max(axis=-1) < 40).sum() > 100
    pair = cv2.imdecode(np.frombuffer(draw_pair(measured, 2), np.uint8), cv2.IMREAD_COLOR)
    assert not (np.abs(pair.astype(int) - color).max(axis=-1) < 40).any()


def test_the_command_writes_a_page_that_needs_nothing_else(
    data: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    name = data.with_name("a <b>.json")
    data.rename(name)
    sets = ["--set", str(name), str(data.parent)]
    out = tmp_path / "out"
    assert main(["errors", str(tiny_model), *sets, "-o", str(out), "--worst", "2"]) == 0
    page = (out / "errors.html").read_text()
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("a <b>: AP50")]
    assert "The largest kinds of errors" in line and "person as bicycle" in line
    assert "<b>" not in page and "a &lt;b&gt;" in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert page.count("<figure>") == 2
    number = json.loads((out / "errors.json").read_text())["a <b>"]
    assert number["errors"]["missed"]["count"] == 1
    assert number["sizes"]["input"] == [48, 32]


def test_no_set_and_no_image_are_told(
    data: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    assert main(["errors", str(tiny_model), "-o", str(tmp_path / "out")]) == 1
    assert "give --set" in capsys.readouterr().err
    sets = ["--set", str(data), str(tmp_path)]
    assert main(["errors", str(tiny_model), *sets, "-o", str(tmp_path / "out")]) == 1
    assert "none of the 4 images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_detector_that_finds_nothing_has_a_page(
    data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    sets = ["--set", str(data), str(data.parent)]
    out = tmp_path / "out"
    assert main(["errors", str(tiny_model), *sets, "-o", str(out), "--conf", "1"]) == 0
    counts = json.loads((out / "errors.json").read_text())["set"]["errors"]
    assert counts["missed"] == {"count": 6, "ap50_gain": 1}
    assert all(one["count"] == 0 for name, one in counts.items() if name != "missed")
