"""Trackers and annotators of others take our detections as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rdlite import open_results
from rdlite.results import Detections
from rdlite.sinks import open_sink
from tests.samples import CATEGORY_IDS, NAMES, header

supervision = pytest.importorskip("supervision")
SIZE = (320, 240)
FRAMES = 40


def crossing(frame: int) -> Detections:
    """A person that walks to the right and a traffic light that stands still, best first."""
    boxes = [[20 + 4 * frame, 100, 50 + 4 * frame, 180], [200, 20, 220, 70]]
    visible = [0, 1] if frame % 10 != 5 else [1]  # the person is missed now and then
    return Detections(
        xyxy=np.array(boxes, np.float32)[visible],
        confidence=np.array([0.9, 0.8], np.float32)[visible],
        class_id=np.array([0, 1])[visible],
        names=NAMES,
        category_ids=CATEGORY_IDS,
        image_size=SIZE,
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    with open_sink("jsonl", tmp_path / "clip.jsonl", header=header()) as sink:
        for frame in range(FRAMES):
            empty = Detections.empty(names=NAMES, category_ids=CATEGORY_IDS, image_size=SIZE)
            sink.write(empty if frame == 0 else crossing(frame), image="clip.mp4", frame=frame)
    return tmp_path / "clip.jsonl"


@pytest.mark.parametrize("name", ["ByteTrackTracker", "SORTTracker", "OCSORTTracker"])
def test_a_tracker_numbers_each_object_once(name: str, results: Path) -> None:
    trackers = pytest.importorskip("trackers", reason="run `pip install trackers`")
    tracker = getattr(trackers, name)()
    numbers: dict[int, set[int]] = {0: set(), 1: set()}
    for record in open_results(results):
        for *_, kind, number, _ in tracker.update(record.found.to_supervision()):
            if number >= 0:
                numbers[kind].add(number)
    assert [len(found) for found in numbers.values()] == [1, 1]
    assert numbers[0] != numbers[1]


def test_supervision_draws_and_counts_them(results: Path) -> None:
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    zone = supervision.PolygonZone(np.array([[150, 0], [319, 0], [319, 239], [150, 239]]))
    inside = []
    for record in open_results(results):
        found = record.found.to_supervision()
        inside.append(int(zone.trigger(found).sum()))
        drawn = supervision.BoxAnnotator().annotate(picture.copy(), found)
        drawn = supervision.LabelAnnotator().annotate(drawn, found)
        assert bool(drawn.any()) == (len(record.found) > 0)
    assert inside[1] == 1 and inside[-1] == 2
