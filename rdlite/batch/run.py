"""Many images and videos, many workers: nothing is lost, and nothing is done twice.

One process drives: it hands out tasks, and it alone writes the record of what is done. Workers
write annotated copies and parts of videos. What a task leaves is on disk before the record says
so (a copy that a power cut has shortened is made again); what the record does not have is made
again, and comes out the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdlite.batch.failures import add_failure, forget_failures
from rdlite.batch.feed import ERRORS, WORK, BatchJob, Done, Failed, Feed, Item
from rdlite.batch.images import ImageResult, ImageTask
from rdlite.batch.record import Record
from rdlite.batch.totals import Forecast, Listener, Totals, failure_text
from rdlite.batch.videos import FinishTask, OpenVideo, PartTask, summary_from, summary_values
from rdlite.convert import copy_lines
from rdlite.errors import OptionError, OutputError, RdliteError
from rdlite.overlap import prefetch
from rdlite.sinks import open_sink
from rdlite.sinks.base import Sink
from rdlite.storage.journal import jsonl_header, versions
from rdlite.storage.lock import Lock
from rdlite.storage.outputs import Input, refuse_existing, utf8_name
from rdlite.storage.partial import remove_leftovers
from rdlite.video.job import VideoJob, check_options, video_versions
from rdlite.wording import count
from rdlite.workers.pool import Outcome, Pool

if TYPE_CHECKING:
    from rdlite.detector import Detector


class Batch:
    """Works through the inputs of a job.

    Args:
        job: What is wanted.
        detector: What it is done with.
        pool: The workers, started.
        listener: Who is told what happens.
        totals: Where all of it is counted.
    """

    def __init__(
        self, job: BatchJob, detector: Detector, pool: Pool, listener: Listener, totals: Totals
    ) -> None:
        self._totals = totals
        self._job, self._detector, self._pool, self._listener = job, detector, pool, listener
        videos = sum(one.video for one in job.inputs)
        self._counts = len(job.inputs) - videos, videos
        self._forecast = Forecast(*self._counts)
        self._images: Record | None = None
        self._videos: Record | None = None

    def run(self, failed: Iterable[tuple[str, str]] = ()) -> None:
        """Do all that is not done yet, and at the end write the detections in all images.

        An exception ends it; what is done by then stays for a run with `resume`. Where all inputs
        have failed there is nothing to go on with, and no record stays.

        Args:
            failed: (name, reason) of what is known to fail, to be reported with the others.

        Raises:
            OptionError: An option cannot be used, an output is there already, or the record is
                that of a run with other options.
            OutputError: The disk is full, or the output folder has vanished.
            RdliteError: Another process writes the same output.
        """
        self._check_options()
        with contextlib.ExitStack() as stack:
            self._job.folder.mkdir(parents=True, exist_ok=True)
            if self._job.record:
                self._begin(stack)
            for source, error in failed:
                self._fail(source, error)
            self._feed = Feed(
                self._job, self._detector, self._images, self._videos, self._pool.workers
            )
            self._opened = self._feed.opened
            self._pool.on_progress = self._listener.progress
            try:
                self._work()
            except BaseException as error:
                self._pool.close()  # before others may have the outputs
                for video in self._opened.values():
                    video.close(error)
                raise
            self._report_changes()
            self._publish()

    def _check_options(self) -> None:
        """Raise for what would be wrong with any input; later errors are those of one input."""
        job = self._job
        if job.folder.exists() and not job.folder.is_dir():
            raise OptionError(f"{job.folder} is a file; name a folder for the output with -o")
        if self._counts[1]:
            video, results = job.folder / "any.mp4", job.folder / "any"
            check_options(
                VideoJob(Path("any"), video if job.annotate else None, results, **job.video)
            )

    def _begin(self, stack: contextlib.ExitStack) -> None:
        """Lock the output folder and open the record."""
        job, work = self._job, self._job.folder / WORK
        work.mkdir(exist_ok=True)
        stack.callback(_remove_empty, work)
        stack.enter_context(Lock(work / "lock"))
        images, videos = self._counts
        self._refuse_existing(work)
        if videos:  # first: where another command's videos are refused, nothing has been written
            options = {**video_versions(), "annotate": job.annotate, "format": job.format}
            self._videos = stack.enter_context(self._record("videos", options | dict(job.video)))
        if images:
            self._sink(overwrite=True).abort()  # what cannot work is said now
            self._images = stack.enter_context(self._record("images", versions()))
            own = job.detections.name in self._images.published
            refuse_existing(job.detections, overwrite=job.overwrite or own)
        forget_failures(job.folder / ERRORS, (one.path for one in job.inputs), job.arguments)

    def _refuse_existing(self, work: Path) -> None:
        """Raise before anything is written if a file would be replaced unasked."""
        job = self._job
        wanted = zip(("images", "videos"), self._counts, strict=True)
        paths = [work / f"{name}.jsonl" for name, number in wanted if number]
        for path in paths if not (job.resume or job.overwrite) else ():
            if path.exists():
                raise OptionError(
                    f"{job.folder} holds an earlier run, recorded in {path}; go on with it "
                    "(--resume), replace it (--overwrite), or use another -o"
                )
        if self._counts[0] and not paths[0].exists():
            refuse_existing(job.detections, overwrite=job.overwrite)

    def _record(self, name: str, options: Mapping[str, Any]) -> Record:
        job = self._job
        path = job.folder / WORK / f"{name}.jsonl"
        header = self._header(options)
        return Record(path, header, job.inputs, resume=job.resume, overwrite=job.overwrite)

    def _header(self, options: Mapping[str, Any]) -> dict[str, Any]:
        detector = self._detector
        return jsonl_header(
            detector.model_sha256,
            names=detector.names,
            category_ids=detector.category_ids,
            options={**detector.options, **options},
        )

    def _work(self) -> None:
        with prefetch(self._feed, 1 + self._pool.workers) as items:
            while True:
                while self._pool.wanting and (item := next(items, None)) is not None:
                    self._take(item)
                    self._listener.check()
                outcome = self._pool.wait()
                if outcome is None:
                    return
                self._settle(outcome)
                self._listener.check()

    def _take(self, item: Item) -> None:
        """Count what needs no work, and submit what does."""
        if isinstance(item, (Done, Failed)):
            one = self._job.inputs[item.number]
            self._forecast.drop(video=one.video)
            if isinstance(item, Failed):
                self._fail(one.path, item.error)
            else:
                self._count_earlier(one, item)
        elif isinstance(item, OpenVideo):
            self._forecast.add_video(item.plan.frames, item.frames)
            if self._videos is not None:
                self._videos.begin([item.number])
        elif isinstance(item, PartTask) and self._opened[item.number].error:
            self._settle_part(item, None)
        else:
            if isinstance(item, ImageTask):
                self._begin_images(item)
            self._pool.submit(item)
        self._listener.expect(self._forecast.units)

    def _begin_images(self, task: ImageTask) -> None:
        self._forecast.add_images(len(task.images))
        if self._job.copies and self._images is not None:
            self._images.begin(image.number for image in task.images)

    def _count_earlier(self, one: Input, done: Done) -> None:
        if done.entry is None:
            self._totals.videos += 1
            self._totals.earlier += 1
            self._listener.note(f"{self._job.folder / one.output} is done already")
            return
        if not one.video:
            self._totals.add_image(done.entry, earlier=True)
            return
        summary = summary_from(done.entry)
        self._totals.add_video(summary, made=0, earlier=True)
        self._listener.video_done(one.path, summary, earlier=True)

    def _settle(self, outcome: Outcome) -> None:
        task, error = outcome.task, outcome.error
        if isinstance(error, OutputError):
            raise error  # as it would be for any other input
        if isinstance(task, ImageTask):
            if error is None:
                self._settle_images(outcome.value)
            else:
                self._find_culprit(task, error)
        elif isinstance(task, PartTask):
            self._settle_part(task, error)
        elif isinstance(task, FinishTask):
            self._settle_video(task, outcome)

    def _settle_images(self, results: list[ImageResult]) -> None:
        for result in results:
            if result.stop:
                raise OutputError(result.error)
            if result.entry is None:
                self._fail(self._job.inputs[result.number].path, result.error)
            else:
                if self._images is not None:
                    self._images.add(result.number, result.entry)
                self._totals.add_image(result.entry)

    def _find_culprit(self, task: ImageTask, error: Exception) -> None:
        """Try images again one by one after a failure of all, such as the death of a worker."""
        if len(task.images) == 1:
            path = task.images[0].path
            self._fail(path, failure_text(path, error))
            return
        for one in reversed(task.alone()):
            self._pool.submit(one, first=True)

    def _settle_part(self, task: PartTask, error: Exception | None) -> None:
        video = self._opened[task.number]
        if error is not None and video.error is None:
            video.error = error
            self._fail(video.job.source, failure_text(video.job.source, error))
        if not video.settle(task):
            return
        if video.error is None:
            self._pool.submit(video.finish(), first=True)
        else:
            self._opened.pop(task.number).close(video.error)

    def _settle_video(self, task: FinishTask, outcome: Outcome) -> None:
        video, summary = self._opened[task.number], outcome.value
        path = str(video.job.source)
        if outcome.error is not None:
            self._fail(path, failure_text(path, outcome.error))
        else:
            if self._videos is not None:
                self._videos.add(task.number, video.source | summary_values(summary))
            self._totals.add_video(summary, made=round(video.share * summary.frames))
            self._listener.video_done(path, summary, earlier=False)
        try:
            self._opened.pop(task.number).close(outcome.error)
        except OSError as error:
            self._listener.warn(f"{video.job.folder} cannot be removed: {error.strerror}")

    def _fail(self, source: str | Path, error: str) -> None:
        self._totals.failed += 1
        self._listener.failed(os.fspath(source), error)
        if self._job.record:
            add_failure(self._job.folder / ERRORS, os.fspath(source), error)

    def _report_changes(self) -> None:
        for record in filter(None, (self._images, self._videos)):
            self._totals.changed += record.changed
            if record.changed:
                changed = count(record.changed, "input has", "inputs have")
                self._listener.note(f"{changed} changed since an earlier run: done anew")
            for sentence in record.warnings():
                self._listener.warn(sentence)

    def _publish(self) -> None:
        """Write the detections in all images, in the order of the inputs."""
        detections = self._job.detections
        if self._images is None or (self._images.empty and not os.path.lexists(detections)):
            return
        remove_leftovers(detections)
        self._images.publish(detections.name)
        try:
            with self._sink(overwrite=self._job.overwrite or self._job.resume) as sink:
                copy_lines(self._header({}), map(image_line, self._images.entries()), sink)
        except RdliteError as error:
            raise OutputError(str(error)) from error
        for sentence in sink.warnings():
            self._listener.warn(sentence)

    def _sink(self, *, overwrite: bool) -> Sink:
        header, path = self._header({}), self._job.detections
        return open_sink(self._job.format, path, header=header, overwrite=overwrite)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def image_line(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of the record as `rdlite.convert.copy_lines` takes it."""
    return {**entry, "image": utf8_name(entry["input"]), "place": entry["output"]}
