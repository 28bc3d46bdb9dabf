"""A video of a batch: the tasks that make and join its parts, and what is open meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdlite.errors import OutputError, RdliteError, ResultFileError, VideoError
from rdlite.storage.journal import describe_difference
from rdlite.storage.jsonlines import read_header
from rdlite.storage.lock import Lock
from rdlite.video.job import OpenJob, VideoJob, clean, job_header, lock_path, open_job
from rdlite.video.parts import make_parts
from rdlite.video.plan import Part, VideoPlan
from rdlite.video.summary import VideoSummary, finish

if TYPE_CHECKING:
    from rdlite.detector import Detector

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


@dataclass(frozen=True, slots=True)
class PartTask:
    """A task for `rdlite.workers.pool.Pool`: make parts of a video.

    Attributes:
        number: Of the video among the inputs of the batch.
        job: What is wanted.
        plan: As `open_job` gave it, as is `header`.
        header: See `plan`.
        parts: Those to make.
    """

    number: int
    job: VideoJob
    plan: VideoPlan
    header: dict[str, Any]
    parts: tuple[Part, ...]

    @property
    def label(self) -> str:
        """Name of the video and, of several parts, which one this is: "clip.mp4 3/12"."""
        part = f" {self.parts[0].index + 1}/{len(self.plan.parts)}"
        return self.job.source.name + (part if len(self.parts) == 1 < len(self.plan.parts) else "")

    def __call__(self, detector: Detector, report: Callable[[int], None]) -> None:
        """Make the parts; see `rdlite.workers.pool.Task`."""
        with _noticing_full_disks():
            make_parts(self.job, self.plan, self.header, detector, self.parts, report)


@dataclass(frozen=True, slots=True)
class FinishTask:
    """A task for `rdlite.workers.pool.Pool`: join the parts of a video; returns a `VideoSummary`.

    Attributes:
        number: As in `PartTask`; so are the others.
        job: See `number`.
        plan: See `number`.
        header: See `number`.
    """

    number: int
    job: VideoJob
    plan: VideoPlan
    header: dict[str, Any]

    @property
    def label(self) -> str:
        """Name of the video."""
        return f"{self.job.source.name} joining"

    def __call__(self, detector: Detector, report: Callable[[int], None]) -> VideoSummary:
        """Join the parts; see `rdlite.workers.pool.Task`."""
        with _noticing_full_disks():
            return finish(self.job, self.plan, self.header)


class OpenVideo:
    """A video in work, its outputs locked from here until `close`.

    Args:
        number: Of the video among the inputs of the batch.
        job: What is wanted.
        detector: What it is made with.

    Attributes:
        number: See above.
        job: See above.
        plan: Its parts.
        source: Size and time of the file, as they were when it was opened.
        error: Why parts of it could not be made.

    Raises:
        RdliteError: As `open_job`.
    """

    def __init__(self, number: int, job: VideoJob, detector: Detector) -> None:
        self.number, self.job = number, job
        self.error: Exception | None = None
        self._context: AbstractContextManager[OpenJob] = open_job(job, detector)
        self._opened = self._context.__enter__()
        self._left = len(self._opened.pending)
        self.plan = self._opened.plan
        self.source = {key: self._opened.header[key] for key in ("source_size", "mtime_ns")}

    @property
    def frames(self) -> int:
        """Frames that are not done yet, as far as the plan knows."""
        return sum(part.frames for part in self._opened.pending)

    @property
    def share(self) -> float:
        """How much of it was not made yet when it was opened, from 0 to 1."""
        whole = self.plan.frames  # 0 where the scan found none
        return self.frames / whole if whole else float(bool(self._opened.pending))

    def tasks(self, *, split: bool) -> Iterator[PartTask | FinishTask]:
        """Yield what is left to do before `finish`, as one task or in parts; or the end of it."""
        pending, header = self._opened.pending, self._opened.header
        groups = [(part,) for part in pending] if split else [pending]
        for parts in groups if pending else ():
            yield PartTask(self.number, self.job, self.plan, header, parts)
        if not pending:
            yield self.finish()

    def finish(self) -> FinishTask:
        """Return the task that comes after all parts."""
        return FinishTask(self.number, self.job, self.plan, self._opened.header)

    def settle(self, task: PartTask) -> bool:
        """Note that a task has ended or was given up; return whether it was the last one."""
        self._left -= len(task.parts)
        return self._left == 0

    def close(self, error: BaseException | None = None) -> None:
        """Unlock the outputs: the video is done, or an error ends the work on it."""
        if error is None:
            clean(self.job)
        self._context.__exit__(type(error) if error else None, error, None)


def is_done(job: VideoJob, detector: Detector) -> bool:
    """Whether the outputs of a job are there and come from the same job.

    Raises:
        VideoError: They come from one with other settings, or are not JSON Lines, which alone say
            what they come from.
    """
    if job.results is None or job.folder.exists():
        return False
    if not all(path.exists() for path in job.outputs):
        return False
    if job.format != "jsonl":
        if job.overwrite:
            return False
        raise VideoError(
            f"{' and '.join(map(str, job.outputs))} exist already, and {job.format} does not say "
            "with which settings they were made; replace them (--overwrite), or give another -o"
        )
    try:
        header = read_header(job.results)
    except ResultFileError:
        return False
    difference = describe_difference(header, job_header(job, detector))
    if difference and not job.overwrite:
        raise VideoError(
            f"{job.results} was written with other settings ({difference}); give the same ones, or "
            "replace it (--overwrite)"
        )
    return not difference


def tidy(job: VideoJob) -> None:
    """Remove what a run leaves that is killed after a video was recorded as done."""
    for output in job.outputs:
        with contextlib.suppress(RdliteError), Lock(lock_path(output)):
            pass
    if job.folder.exists():
        clean(job)


def summary_values(summary: VideoSummary) -> dict[str, Any]:
    """Return a summary as an entry of the record, `{"summary": JSON values}`."""
    items = asdict(summary).items()
    return {"summary": {k: os.fspath(v) if isinstance(v, Path) else v for k, v in items}}


def summary_from(entry: Mapping[str, Any]) -> VideoSummary:
    """Return the summary in an entry of the record."""
    values = dict(entry["summary"])
    for key in ("output", "results"):
        values[key] = None if values[key] is None else Path(values[key])
    return VideoSummary(**values)


@contextlib.contextmanager
def _noticing_full_disks() -> Iterator[None]:
    """Turn an error that comes from a full disk into an `OutputError`."""
    try:
        yield
    except (RdliteError, OSError) as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno in _FULL:
                raise OutputError(str(error)) from error
            cause = cause.__cause__ or cause.__context__
        raise
