"""What a user waits for with a video: everything around the network hidden behind it.

This needs two cores, one for the network and one for the rest, so not `taskset -c 0`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import pytest

from benchmarks.clips import write_street_720p
from rdlite import Detector
from rdlite.video.reader import VideoReader

FRAMES = 500
NETWORK_TARGET = 0.9  # of the frames a second that `session.run` alone does on one core


@pytest.fixture(autouse=True)
def two_cores() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("it takes a second core to decode and encode while the network runs")


@pytest.fixture(scope="module")
def street_720p(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_street_720p(tmp_path_factory.mktemp("video") / "street.mp4", FRAMES)


def network_ms(detector: Detector, images: list[np.ndarray]) -> float:
    """Median of `session.run` alone."""
    return median(detector(image).speed["inference"] for image in images)


def with_supervision(detector: Detector, source: Path, target: Path) -> None:
    """The same job by supervision; it writes MPEG-4 and no sound."""
    import supervision

    boxes, labels = supervision.BoxAnnotator(), supervision.LabelAnnotator()

    def annotate(image: np.ndarray, _: int) -> np.ndarray:
        found = detector(image).to_supervision()
        return labels.annotate(boxes.annotate(image.copy(), found), found)

    supervision.process_video(str(source), str(target), annotate)


@pytest.mark.timeout(1800)
def test_annotate_720p(measure: Callable[..., Any], street_720p: Path, tmp_path: Path) -> None:
    detector = Detector()

    def annotate() -> Any:
        output = tmp_path / "out.mp4"
        return detector.annotate_video(street_720p, output, overwrite=True, progress=False)

    with VideoReader(street_720p, stride=5) as reader:
        images = [frame.image for frame in reader]
    before = network_ms(detector, images)
    seconds = annotate().seconds
    alone = mean([before, network_ms(detector, images)])
    summary = measure(
        annotate,
        rounds=3,
        target_ms=alone * FRAMES / NETWORK_TARGET,
        oracle=lambda: with_supervision(detector, street_720p, tmp_path / "supervision.mp4"),
        network_ms=alone,
        of_network_alone=alone * FRAMES / (1e3 * seconds),
        fps=FRAMES / seconds,
    )
    assert summary.frames == FRAMES
