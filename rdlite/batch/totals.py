"""What a batch tells while it works, and what it has counted at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from rdlite.errors import RdliteError
from rdlite.video.summary import VideoSummary
from rdlite.workers.pool import Task


class Listener(Protocol):
    """Who is told what happens, when it happens; called by the thread that drives the batch."""

    def failed(self, source: str, error: str) -> None:
        """An input does not go through; `error` is one sentence that names it."""

    def note(self, text: str) -> None:
        """Something that a person may want to know."""

    def warn(self, text: str) -> None:
        """Something is lost or left out, or could not be done."""

    def video_done(self, path: str, summary: VideoSummary, *, earlier: bool) -> None:
        """A video went through, in this run or in an earlier one."""

    def progress(self, worker: int, task: Task, units: int) -> None:
        """See `rdlite.workers.pool.Pool.on_progress`; units are images and frames of videos."""

    def expect(self, units: float) -> None:
        """This run will have done so many units in the end, as far as can be told by now."""

    def check(self) -> None:
        """Raise an exception to end the batch."""


@dataclass(slots=True)
class Totals:
    """What became of the inputs of a batch.

    Attributes:
        images: Images that went through, in this run or in an earlier one.
        videos: Likewise.
        frames: Frames of these videos.
        units: Images and frames that went through in this run.
        earlier: Inputs that went through in an earlier run.
        changed: Inputs that an earlier run had done, whose files have changed since.
        failed: Inputs that did not go through.
        damaged: Videos that went through but could not be read in full.
        found: Detections by class name.
        dropped: Anchors left out because the network gave NaN or infinity.
        start: When it began, seconds of `perf_counter`.
    """

    images: int = 0
    videos: int = 0
    frames: int = 0
    units: int = 0
    earlier: int = 0
    changed: int = 0
    failed: int = 0
    damaged: int = 0
    found: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    start: float = field(default_factory=perf_counter)

    @property
    def done(self) -> int:
        """Inputs that went through."""
        return self.images + self.videos

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return perf_counter() - self.start

    def add_image(self, entry: Mapping[str, Any], *, earlier: bool = False) -> None:
        """Count an image, by its entry in `rdlite.batch.images.ImageResult`."""
        self.images += 1
        self.earlier += earlier
        self.units += not earlier
        self.add_objects(entry)

    def add_objects(self, line: Mapping[str, Any]) -> None:
        """Count the objects of an image or a frame."""
        self.found.update(one["class_name"] for one in line["detections"])
        self.dropped += line["dropped_nonfinite"]

    def add_video(self, summary: VideoSummary, *, made: int, earlier: bool = False) -> None:
        """Count a video, of whose frames this run made some."""
        self.videos += 1
        self.earlier += earlier
        self.frames += summary.frames
        self.units += made
        self.found.update(summary.detections)
        self.dropped += summary.dropped_nonfinite
        self.damaged += is_damaged(summary)


def is_damaged(summary: VideoSummary) -> bool:
    """Whether some of the picture or of the sound could not be read."""
    return summary.truncated or bool(summary.bad_packets or summary.audio_bad_packets)


def failure_text(path: str | Path, error: Exception) -> str:
    """Return the sentence on an input that an error ended."""
    if isinstance(error, RdliteError):
        return str(error)
    return f"{path}: {type(error).__name__}: {error}"


class Forecast:
    """How many units a batch will have done in the end; a video not planned yet is an average one.

    Args:
        images: Images whose fate is not known yet.
        videos: Likewise.
    """

    def __init__(self, images: int, videos: int) -> None:
        self._images, self._videos = images, videos
        self._units = self._planned = self._frames = 0

    @property
    def units(self) -> float:
        """The forecast."""
        mean = self._frames / max(1, self._planned)
        return self._units + self._images + self._videos * mean

    def add_images(self, images: int) -> None:
        """Some of the images will be worked on."""
        self._images -= images
        self._units += images

    def add_video(self, frames: int, left: int) -> None:
        """One of the videos has so many frames, of which so many are left to do."""
        self._videos -= 1
        self._planned += 1
        self._frames += frames
        self._units += left

    def drop(self, *, video: bool) -> None:
        """One of the images, or of the videos, will not be worked on."""
        self._videos -= video
        self._images -= not video
