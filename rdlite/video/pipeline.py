"""Video in, detections or an annotated video out, in one call."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rdlite.errors import OptionError
from rdlite.overlap import prefetch
from rdlite.results import Detections
from rdlite.video.job import VideoJob, clean, open_job
from rdlite.video.media import source_path
from rdlite.video.parts import make_parts
from rdlite.video.reader import Frame, VideoReader
from rdlite.video.summary import VideoSummary, finish

if TYPE_CHECKING:
    from rdlite.detector import Detector

_log = logging.getLogger(__name__)
Progress: TypeAlias = Callable[[int, int], object] | bool | None
_PROGRESS_DELAY = 2.0  # seconds; a bar for a shorter job only flickers
_AHEAD = 2  # frames that are decoded before they are asked for


def stream(
    detector: Detector,
    source: str | os.PathLike[str] | VideoReader,
    *,
    stride: int = 1,
    start: float | None = None,
    end: float | None = None,
    **options: Any,
) -> Iterator[tuple[Frame, Detections]]:
    """Detect objects in a video, frame by frame; only a few frames are in memory.

    A thread decodes ahead while the detector works. A bad file raises here and not at the first
    frame. The file is closed when the iteration ends or is abandoned. What could not be read is
    logged as a warning; for the numbers pass a `VideoReader` and look at it afterwards.

    Args:
        detector: A `Detector`, or anything that is called the same way.
        source: A video file, or a `VideoReader`, which has its own stride, start and end.
        stride: Yield every Nth frame.
        start: Seconds since the container's start, None for the beginning.
        end: Seconds before which the last frame begins, None for the end.
        **options: `conf`, `iou`, `nms`, `max_det`, `classes`, as for calling the detector.

    Yields:
        The frame, and what was found in it, in pixels of that frame.

    Raises:
        OptionError: An option is out of range.
        VideoError: The file cannot be read.

    Example:
        >>> for frame, found in stream(detector, "clip.mp4", stride=5):
        ...     print(f"{frame.time:.3f}", found.class_names)
    """
    if not isinstance(source, VideoReader):
        opener = functools.partial(VideoReader, source, stride=stride, start=start, end=end)
        opener().close()  # a bad file raises here; an iterator that is never begun holds none open
        return _stream(detector, opener, options)
    if (stride, start, end) != (1, None, None):
        raise OptionError("give stride, start and end to the VideoReader, not to stream as well")
    return _stream(detector, lambda: source, options)


def _stream(
    detector: Detector, opener: Callable[[], VideoReader], options: dict[str, Any]
) -> Iterator[tuple[Frame, Detections]]:
    with opener() as reader, prefetch(reader, _AHEAD) as frames:
        for frame in frames:
            yield frame, detector(frame.image, **options)
    for sentence in reader.warnings():
        _log.warning("%s: %s", reader.path, sentence)


def annotate_video(
    detector: Detector,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    jsonl: str | os.PathLike[str] | bool | None = True,
    stride: int = 1,
    start: float | None = None,
    end: float | None = None,
    audio: bool = True,
    codec: str = "libx264",
    crf: int | None = 23,
    preset: str | None = "veryfast",
    encoder_threads: int = 1,
    progress: Progress = None,
    overwrite: bool = False,
    resume: bool = False,
    **options: Any,
) -> VideoSummary:
    """Write a copy of a video with the objects in it boxed and named.

    Every frame of the source is written at its own time, and the sound is copied packet for
    packet. With `stride` N the detector looks at every Nth frame and its boxes stay on the
    frames in between. Decoding, detection, and drawing and encoding run side by side.

    Output files appear under their names only when they are whole. The video is made in parts of
    some 250 frames or more, which begin at keyframes of the source, in the folder ".<name>.rdlite"
    beside the output. Parts that are whole when an error, an interruption or a crash ends the
    work stay there, and with `resume` the work goes on: the files come out the same, byte for
    byte.

    Args:
        detector: A `Detector`, or anything that is called the same way.
        source: A video file.
        output: The annotated video; its name must end in ".mp4". Time 0 is the container's
            start, or with `start` the first frame written.
        jsonl: Where to write the detections: True for beside the output as ".jsonl", a path, or
            False or None for nowhere. One line for every Nth frame; `frame` counts from the
            first frame written, `pts` and `time` are the source's.
        stride: Detect on every Nth frame. Where a part begins, the detector looks once more, for
            boxes to draw until the next Nth frame; they are not recorded.
        start: Seconds since the container's start of the first frame, None for the beginning.
        end: Seconds before which the last frame begins, None for the end.
        audio: False leaves the sound out.
        codec: FFmpeg video encoder.
        crf: Constant rate factor of the encoder; None leaves the quality to the encoder.
        preset: Speed of libx264 and libx265, "ultrafast" to "placebo"; None leaves it to the
            encoder.
        encoder_threads: Threads of the encoder.
        progress: True shows a progress bar; None shows it on a terminal, from two seconds on; a
            function is called with the frames done and the frames expected.
        overwrite: Replace existing output files, and with `resume` what an attempt with other
            settings left.
        resume: Go on with what an earlier attempt left; False begins anew.
        **options: `conf`, `iou`, `nms`, `max_det`, `classes`, as for calling the detector.

    Returns:
        What was done, with every loss counted.

    Raises:
        OptionError: An option is out of range, an output is no path, or not an ".mp4".
        VideoError: The source cannot be read or has no frame in the range, an output file exists
            and `overwrite` is False, the output is the source, `resume` meets other settings, or
            the disk is full.
        RdliteError: The JSONL file cannot be written, or another process writes the same output.

    Example:
        >>> summary = annotate_video(detector, "clip.mp4", "boxes.mp4", stride=3)
        >>> print(summary.frames, summary.detections, *summary.warnings)
    """
    video = _output_path("output", output)
    chosen = jsonl is not None and not isinstance(jsonl, bool)
    results = _output_path("jsonl", jsonl) if chosen else None
    job = VideoJob(
        source=source_path(source),
        video=video,
        results=video.with_suffix(".jsonl") if jsonl is True else results,
        stride=stride,
        start=start,
        end=end,
        audio=audio,
        codec=codec,
        crf=crf,
        preset=preset,
        encoder_threads=encoder_threads,
        options={name: value for name, value in options.items() if value is not None},
        overwrite=overwrite,
        resume=resume,
    )
    with open_job(job, detector) as opened:
        plan, header, pending = opened.plan, opened.header, opened.pending
        made = plan.frames - sum(part.frames for part in pending)
        with _progress(progress, made, plan.frames) as advance:
            make_parts(job, plan, header, detector, pending, advance)
        summary = finish(job, plan, header)
        clean(job)
    return summary


def _output_path(name: str, value: Any) -> Path:
    try:
        path = Path(value)
    except TypeError:
        raise OptionError(f"{name} must be a path, got {type(value).__name__}") from None
    if not path.name or "\0" in str(path):
        raise OptionError(f"{name} must name a file, got {value!r}")
    return path


@contextlib.contextmanager
def _progress(choice: Progress, done: int, total: int) -> Iterator[Callable[[int], object]]:
    if callable(choice):

        def advance(frames: int) -> None:
            nonlocal done
            done += frames
            choice(done, total)

        yield advance
    elif choice or (choice is None and sys.stderr.isatty()):
        from tqdm import tqdm

        delay = _PROGRESS_DELAY if choice is None else 0.0
        with tqdm(total=total, initial=done, unit="frame", delay=delay) as bar:
            yield bar.update
    else:
        yield lambda frames: None
