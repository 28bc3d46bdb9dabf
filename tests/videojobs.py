"""Jobs for tests: a detector that follows the picture, and how a job is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rdlite.results import Detections
from rdlite.video.job import VideoJob, clean, open_job
from rdlite.video.parts import make_parts
from rdlite.video.summary import VideoSummary, finish
from tests.media import TwoBoxes

Bgr = np.ndarray
FRAMES = 800  # three parts


class Follower(TwoBoxes):
    """A detector whose one box is where the picture's number says, and that counts its calls."""

    def __init__(self, fail: Callable[[int], None] = lambda calls: None) -> None:
        super().__init__()
        self._fail = fail

    def __call__(self, image: Bgr, **options: Any) -> Detections:
        found = super().__call__(image, **options)
        self._fail(len(self.sizes))
        shift = image[:16].mean() / 10
        return Detections(
            xyxy=found.xyxy[:1] + np.float32(shift),
            confidence=found.confidence[:1],
            class_id=found.class_id[:1],
            names=self.names,
            category_ids=self.category_ids,
            image_size=found.image_size,
        )


def fail_at(call: int, error: BaseException) -> Follower:
    def fail(calls: int) -> None:
        if calls == call:
            raise error

    return Follower(fail)


def job(source: Path, folder: Path, **changes: Any) -> VideoJob:
    values: dict[str, Any] = {"video": folder / "out.mp4", "results": folder / "out.jsonl"}
    return VideoJob(source, **(values | changes))


def run(
    job: VideoJob,
    detector: Any = None,
    groups: Callable[[tuple[Any, ...]], Iterable[Any]] = lambda parts: [parts],
) -> VideoSummary:
    """Do a job, its parts made in groups."""
    detector = detector or Follower()
    with open_job(job, detector) as opened:
        for parts in groups(opened.pending):
            make_parts(job, opened.plan, opened.header, detector, parts, lambda frames: None)
        summary = finish(job, opened.plan, opened.header)
        clean(job)
    return summary


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
