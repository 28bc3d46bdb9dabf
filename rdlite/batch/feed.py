"""What a batch has to do, input by input: what is done already, and tasks for the rest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rdlite.batch.images import Image, ImageTask, chunk_size
from rdlite.batch.record import Record
from rdlite.batch.totals import failure_text
from rdlite.batch.videos import FinishTask, OpenVideo, PartTask, is_done, tidy
from rdlite.errors import ImageError, OptionError, VideoError
from rdlite.sinks import FORMATS
from rdlite.sinks.labels import check_inside
from rdlite.storage.outputs import Input, Outputs
from rdlite.video.job import VideoJob

if TYPE_CHECKING:
    from rdlite.detector import Detector


WORK: Final = ".rdlite"
"""Folder in the output folder that holds the lock and the record."""

ERRORS: Final = "errors.jsonl"
"""File in the output folder that lists the inputs that failed."""


@dataclass(frozen=True, slots=True)
class BatchJob:
    """What to make of many inputs.

    Attributes:
        inputs: What to work on, in the order of the results.
        folder: The output folder.
        arguments: What was named to find the inputs; failures of that are told of anew.
        format: Of the detections, a key of `rdlite.sinks.FORMATS`.
        copies: Write annotated copies of the images.
        annotate: Write annotated copies of the videos.
        video: Fields of `rdlite.video.job.VideoJob` for all videos.
        record: Keep a record, so that a later run can go on, and list failures in errors.jsonl.
            Without one the detections in images go nowhere.
        overwrite: Replace existing outputs, and the record of an earlier run.
        resume: Go on with the record of an earlier run.
    """

    inputs: Sequence[Input]
    folder: Path
    arguments: Sequence[str] = ()
    format: str = "jsonl"
    copies: bool = True
    annotate: bool = False
    video: Mapping[str, Any] = field(default_factory=dict)
    record: bool = True
    overwrite: bool = False
    resume: bool = False

    @property
    def detections(self) -> Path:
        """Where the detections in all images go."""
        return self.folder / f"detections{FORMATS[self.format].ending}"

    def results(self, video: Input) -> str:
        """Return where the detections in a video go, relative to the output folder."""
        if not self.annotate:
            return video.output
        return os.path.splitext(video.output)[0] + FORMATS[self.format].ending


@dataclass(frozen=True, slots=True)
class Done:
    """An input that an earlier run has done; its entry in the record, None without a record."""

    number: int
    entry: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Failed:
    """An input on which no work can begin, and why."""

    number: int
    error: str


Item: TypeAlias = "Done | Failed | ImageTask | OpenVideo | PartTask | FinishTask"


class Feed:
    """Iterates over the work of a batch: once, and meant for a thread of its own.

    Planning videos and looking for thousands of files takes time, in which workers wait.

    Args:
        job: What is wanted.
        detector: What it is done with.
        images: The record of the images, None if there are none.
        videos: The record of the videos, None if there are none or no record is kept.
        workers: How many there are; one gets whole videos, several get parts.

    Attributes:
        opened: The videos opened so far, by number; whoever is done with one takes it out.
    """

    def __init__(
        self,
        job: BatchJob,
        detector: Detector,
        images: Record | None,
        videos: Record | None,
        workers: int,
    ) -> None:
        self.opened: dict[int, OpenVideo] = {}
        self._job, self._detector, self._workers = job, detector, workers
        self._images, self._videos = images, videos
        self._outputs = Outputs(job.folder, job.inputs)

    def __iter__(self) -> Iterator[Item]:
        images: list[Image] = []
        count = sum(not one.video for one in self._job.inputs)
        size = chunk_size(count, self._workers)
        for number, one in enumerate(self._job.inputs):
            if one.video:
                yield from self._video_items(number, one)
                continue
            item = self._image_item(number, one)
            if not isinstance(item, Image):
                yield item
                continue
            images.append(item)
            if len(images) == size:
                yield ImageTask(self._job.folder, tuple(images))
                images.clear()
        if images:
            yield ImageTask(self._job.folder, tuple(images))

    def _image_item(self, number: int, one: Input) -> Image | Done | Failed:
        entry = self._images.get(number) if self._images else None
        if FORMATS[self._job.format].folder:
            try:
                check_inside(one.output)
            except OptionError as error:
                if self._images:
                    self._images.leave_out(number)
                return Failed(number, str(error))
        if not self._job.copies:
            return Done(number, entry) if entry else Image(number, Path(one.path), None)
        if entry and _size(self._job.folder / one.output) == entry.get("copy_size", -1):
            return Done(number, entry)
        overwrite = self._job.overwrite or _owns(self._images, number)
        try:
            copy = self._outputs.path(one, one.output, overwrite=overwrite, error=ImageError)
        except ImageError as error:
            return Failed(number, str(error))
        return Image(number, Path(one.path), copy)

    def _video_items(self, number: int, one: Input) -> Iterator[Item]:
        entry = self._videos.get(number) if self._videos else None
        try:
            job = self._video_job(number, one)
            if entry and all(path is None or path.exists() for path in (job.video, job.results)):
                with contextlib.suppress(OSError):
                    tidy(job)
                yield Done(number, entry)
                return
            if self._videos is None and job.resume and is_done(job, self._detector):
                yield Done(number, None)
                return
            video = OpenVideo(number, job, self._detector)
        except Exception as error:  # whatever is wrong with one video, the others go on
            yield Failed(number, failure_text(one.path, error))
            return
        self.opened[number] = video
        yield video
        yield from video.tasks(split=self._workers > 1)

    def _video_job(self, number: int, one: Input) -> VideoJob:
        job = self._job
        # What the record says was begun is replaced if it cannot be gone on with.
        overwrite = job.overwrite or _owns(self._videos, number)
        # Without a record, `open_job` finds out what may be gone on with.
        check = {"overwrite": overwrite or (self._videos is None and job.resume)}
        results = self._outputs.path(one, job.results(one), **check, error=VideoError)
        video = None
        if job.annotate:
            video = self._outputs.path(one, one.output, **check, error=VideoError)
        results.parent.mkdir(parents=True, exist_ok=True)
        return VideoJob(
            source=Path(one.path),
            video=video,
            results=results,
            format=job.format,
            overwrite=overwrite,
            resume=job.resume,
            **job.video,
        )


def _size(path: Path) -> int | None:
    try:
        return os.lstat(path).st_size
    except OSError:
        return None


def _owns(record: Record | None, number: int) -> bool:
    return record is not None and record.owns(number)
