"""One video to make: what is wanted, the folder in which it grows, and how it is gone on with."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdlite.errors import OptionError, VideoError
from rdlite.options import MOST_THREADS, check_count, plain
from rdlite.sinks import open_sink
from rdlite.sinks.base import STDOUT
from rdlite.storage.journal import describe_difference, dump_line, jsonl_header, versions
from rdlite.storage.lock import Lock
from rdlite.storage.partial import PartialFile, check_free, hidden, remove_leftovers
from rdlite.video.plan import Part, VideoPlan, plan_video
from rdlite.video.reader import check_range
from rdlite.video.writer import check_encoding
from rdlite.wording import count

if TYPE_CHECKING:
    from rdlite.detector import Detector

_HEADER = "header.json"
_LONGEST_GAP = 2**31  # as FFmpeg writes MP4


@dataclass(frozen=True, slots=True)
class VideoJob:
    """What to make of one video; picklable.

    Attributes:
        source: The video.
        video: The annotated MP4 to write, None for none.
        results: The file of detections to write, "-" for standard output, None for none.
        format: Format of `results`, a key of `rdlite.sinks.FORMATS`.
        stride: Detect on every Nth frame.
        start: Seconds since the container's start of the first frame, None for the beginning.
        end: Seconds before which the last frame begins, None for the end.
        audio: Keep the sound.
        codec: FFmpeg video encoder.
        crf: Constant rate factor of the encoder; None leaves the quality to the encoder.
        preset: Speed of libx264 and libx265, one of `rdlite.video.writer.PRESETS`; None is the
            encoder's own.
        encoder_threads: Threads of the encoder.
        options: `conf`, `iou`, `nms`, `max_det`, `classes` that differ from the detector's own.
        overwrite: Replace existing outputs, and what an attempt with other settings left.
        resume: Go on with what an earlier attempt left. Without `resume` and `overwrite`, finished
            parts of one are refused.
    """

    source: Path
    video: Path | None
    results: Path | None
    format: str = "jsonl"
    stride: int = 1
    start: float | None = None
    end: float | None = None
    audio: bool = True
    codec: str = "libx264"
    crf: int | None = 23
    preset: str | None = "veryfast"
    encoder_threads: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False
    resume: bool = False

    @property
    def outputs(self) -> list[Path]:
        """The files to write, without standard output."""
        return [path for path in (self.video, self.results) if path and str(path) != STDOUT]

    @property
    def folder(self) -> Path:
        """Where the parts are kept until they are joined: `parts_folder` of the output."""
        output = self.video or self.results
        if output is None:
            raise OptionError("there is nothing to write; name a video or a file of detections")
        return parts_folder(output)

    def part_path(self, part: Part, ending: str) -> Path:
        """Return where a part is kept: ".mp4", ".jsonl", and last of all ".json", its counts."""
        return self.folder / f"part-{part.index:05d}{ending}"

    def has(self, part: Part) -> bool:
        """Whether a part is made."""
        return self.part_path(part, ".json").exists()

    def check(self, header: Mapping[str, Any]) -> None:
        """Raise `VideoError` if the folder or the source is no longer that of this job."""
        if _read_header(self.folder) != self.settings(header):
            raise VideoError(f"{self.folder} was taken over by another job, or removed")
        then = header["source_size"], header["mtime_ns"]
        now = self.source.stat() if self.source.exists() else None
        if now is None or (now.st_size, now.st_mtime_ns) != then:
            raise VideoError(f"{self.source} has changed while it was read; begin anew")

    def settings(self, header: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that the parts depend on, as JSON gives it back."""
        settings: dict[str, Any] = json.loads(dump_line({**header, **video_versions()}))
        settings.get("video", {}).pop("audio", None)  # sound comes in when they are joined
        return settings


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job whose outputs are locked.

    Attributes:
        plan: The parts of the video.
        header: First line of a JSONL file of it: all that the detections depend on.
        pending: Parts that are not made yet, for `rdlite.video.parts.make_parts`.
    """

    plan: VideoPlan
    header: dict[str, Any]
    pending: tuple[Part, ...]


@contextlib.contextmanager
def open_job(job: VideoJob, detector: Detector) -> Iterator[OpenJob]:
    """Check and lock the outputs of a job, plan it, and look for what is made already.

    Without an error the caller calls `finish` and `clean` in the `with` block. After an error
    parts that are whole stay, if there are any, for a job with `resume`; a note on the error
    (`__notes__`) says so.

    Raises:
        OptionError: An option is out of range.
        VideoError: The source cannot be read or has no frame in the range, an output exists, or
            an earlier attempt had other settings and `overwrite` is False.
        RdliteError: Another process writes the same output.
    """
    check_options(job)
    with contextlib.ExitStack() as locks:
        for path in job.outputs:
            _check_output(path, job)
            locks.enter_context(Lock(lock_path(path)))
            remove_leftovers(path)
        plan = plan_video(job.source, start=job.start, end=job.end)
        if job.video is not None and plan.longest_gap >= _LONGEST_GAP:
            raise VideoError(
                f"{job.source} has a gap between two frames that MP4 cannot hold, as after a jump "
                "of the clock; annotate what is before and after it with start and end "
                "(--start, --end)"
            )
        header = job_header(job, detector)
        _check_results(job, header)
        _prepare_folder(job, header)
        try:
            pending = tuple(part for part in plan.parts if not job.has(part))
            yield OpenJob(plan, header, pending)
        except BaseException as error:
            _keep_parts(job, plan, error)
            raise


def job_header(job: VideoJob, detector: Detector) -> dict[str, Any]:
    """Return the first line of a JSON Lines file of a job: all that its outputs depend on."""
    chosen = {name: plain(value) for name, value in job.options.items()}
    where = {"stride": job.stride, "start": job.start, "end": job.end}
    encoding = ("codec", "crf", "preset", "encoder_threads", "audio") if job.video else ()
    header = jsonl_header(
        detector.model_sha256,
        names=detector.names,
        category_ids=detector.category_ids,
        source=job.source,
        options={**where, **detector.options, **chosen},
    )
    return header | ({"video": {name: getattr(job, name) for name in encoding}} if encoding else {})


def video_versions() -> dict[str, str]:
    """Return `versions`, and that of what decodes and encodes videos.

    Parts that two versions have made would not be those of one video.
    """
    import av

    return versions() | {"av": av.__version__}


def parts_folder(output: Path) -> Path:
    """Return where the parts of a video are kept until they are joined in its output."""
    return hidden(output, "rdlite")


def lock_path(output: Path) -> Path:
    """Return the lock file that whoever writes an output holds."""
    return hidden(output, "lock")


def clean(job: VideoJob) -> None:
    """Remove the folder of a finished job."""
    # A run that is killed meanwhile is gone on with: parts stop counting as made before their
    # files go, and the header goes last.
    for path in sorted(job.folder.iterdir(), key=lambda path: path.suffix != ".json"):
        if path.name != _HEADER:
            path.unlink()
    shutil.rmtree(job.folder)


def check_options(job: VideoJob) -> None:
    """Raise `OptionError` for what is wrong with a job whatever its source is."""
    check_range(job.stride, job.start, job.end)
    check_count("encoder_threads", job.encoder_threads, most=MOST_THREADS)
    if job.video is not None:
        check_encoding(codec=job.codec, crf=job.crf, preset=job.preset)
    if job.video is not None and job.video.suffix.lower() != ".mp4":
        raise OptionError(f"{job.video} must end in .mp4, the only format that rdlite writes")
    if job.video is not None and job.video == job.results:
        raise OptionError(f"{job.video} cannot be both the video and the file of detections")


def _check_output(path: Path, job: VideoJob) -> None:
    if path.exists() and job.source.exists() and os.path.samefile(job.source, path):
        raise VideoError(f"{path} is the source itself; choose another name for the output")
    # An attempt that got as far as its outputs is gone on with all the same.
    begun = job.resume and job.folder.is_dir()
    check_free(path, overwrite=job.overwrite or begun, error=VideoError)


def _check_results(job: VideoJob, header: Mapping[str, Any]) -> None:
    """Raise what the sink will raise, before hours of work."""
    if job.results in job.outputs:
        open_sink(job.format, job.results, header=header, overwrite=True).abort()


def _prepare_folder(job: VideoJob, header: Mapping[str, Any]) -> None:
    settings = job.settings(header)
    old = _read_header(job.folder)
    if job.resume and old is not None:
        difference = describe_difference(old, settings)
        if not difference:
            return
        if not job.overwrite:
            raise VideoError(
                f"{job.video or job.results} was begun with other settings ({difference}); give "
                "the same ones to go on with it, or overwrite=True (--overwrite) to begin anew"
            )
    made = len(list(job.folder.glob("part-*.json"))) if job.folder.is_dir() else 0
    if made and not job.overwrite:
        raise VideoError(
            f"{job.folder} holds {count(made, 'finished part')} of an earlier attempt; resume=True "
            "(--resume) goes on with them, overwrite=True (--overwrite) begins anew"
        )
    _remove(job.folder)
    try:
        job.folder.mkdir()
        target = PartialFile(job.folder / _HEADER, error=VideoError)
        target.partial.write_text(dump_line(settings))
        target.commit()
    except OSError as error:
        _remove(job.folder)
        raise VideoError(f"{job.folder} cannot be made: {error.strerror or error}") from error


def _read_header(folder: Path) -> dict[str, Any] | None:
    try:
        header: dict[str, Any] = json.loads((folder / _HEADER).read_bytes())
    except (OSError, ValueError):
        return None
    return header


def _keep_parts(job: VideoJob, plan: VideoPlan, error: BaseException) -> None:
    made = sum(map(job.has, plan.parts))
    if not made:
        _remove(job.folder)
        return
    error.add_note(
        f"{made} of {count(len(plan.parts), 'part')} of {job.source} kept in {job.folder}; "
        "resume=True (--resume) goes on from there"
    )


def _remove(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
