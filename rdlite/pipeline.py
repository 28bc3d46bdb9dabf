"""Video in, detections or an annotated video out: reader, detector and writer put together."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

from rdlite.annotate import draw
from rdlite.errors import OptionError, VideoError
from rdlite.options import check_count, plain
from rdlite.results import Detections
from rdlite.sinks import JsonlSink, PartialFile, jsonl_header
from rdlite.video import Frame, VideoReader
from rdlite.videowriter import VideoWriter, mp4_target

if TYPE_CHECKING:
    from rdlite.detector import Detector

_log = logging.getLogger(__name__)
_STAGES = ("decode", "detect", "draw", "encode")
Progress: TypeAlias = Callable[[int, int], object] | bool | None
_PROGRESS_DELAY = 2.0  # seconds; a bar for a shorter job only flickers


@dataclass(frozen=True, slots=True)
class VideoSummary:
    """What `annotate_video` did, and everything that it could not keep.

    Attributes:
        output: The annotated video.
        jsonl: The file of detections, None if there is none.
        frames: Frames written.
        detected_frames: Frames that the detector looked at.
        detections: Objects found on those frames, by class name.
        bad_packets: Packets of the picture that could not be read or decoded.
        truncated: The source ends before the frames that it declares.
        rescaled_frames: Frames scaled to the size of the first one.
        retimed_frames: Frames moved by the least that puts them after the frame before.
        audio_copied: Sound tracks copied packet for packet.
        audio_encoded: Sound tracks encoded again as AAC.
        audio_dropped: Sound tracks left out because they cannot be decoded.
        audio_bad_packets: Packets of sound left out: damaged, without a time, or out of order.
        streams_dropped: Other streams left out, by kind, such as `{"subtitle": 1}`.
        dropped_nonfinite: Anchors left out because the network gave NaN or infinity.
        seconds: Time that the whole job took.
        speed: Milliseconds per written frame in `decode`, `detect`, `draw` and `encode`.
        warnings: One sentence for each thing that was left out or changed; empty when all is well.
    """

    output: Path
    jsonl: Path | None
    frames: int
    detected_frames: int
    detections: dict[str, int]
    bad_packets: int
    truncated: bool
    rescaled_frames: int
    retimed_frames: int
    audio_copied: int
    audio_encoded: int
    audio_dropped: int
    audio_bad_packets: int
    streams_dropped: dict[str, int]
    dropped_nonfinite: int
    seconds: float
    speed: dict[str, float]
    warnings: list[str] = field(default_factory=list)


def stream(
    detector: Detector,
    source: str | os.PathLike[str] | VideoReader,
    *,
    stride: int = 1,
    start: float | None = None,
    end: float | None = None,
    **options: Any,
) -> Iterator[tuple[Frame, Detections]]:
    """Detect objects in a video, one frame at a time; only the current frame is in memory.

    A bad file raises here and not at the first frame. The file is closed
    when the iteration ends or is abandoned. What could not be read is logged as a warning; for
    the numbers pass a `VideoReader` and look at it afterwards.

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
    with opener() as reader:
        for frame in reader:
            yield frame, detector(frame.image, **options)
    for sentence in reader.warnings():
        _log.warning("%s", sentence)


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
    progress: Progress = None,
    overwrite: bool = False,
    **options: Any,
) -> VideoSummary:
    """Write a copy of a video with the objects in it boxed and named.

    Every frame of the source is written at its own time, and the sound is copied packet for
    packet. With `stride` N the detector looks at every Nth frame and its boxes stay on the
    frames in between. Output files appear under their names only when they are whole; after an
    error or an interruption there are none.

    Args:
        detector: A `Detector`, or anything that is called the same way.
        source: A video file.
        output: The annotated video; its name must end in ".mp4". Time 0 is the container's
            start, or with `start` the first frame written.
        jsonl: Where to write the detections: True for beside the output as ".jsonl", a path, or
            False or None for nowhere. One line per frame that the detector looked at; `frame`
            counts from the first frame written, `pts` and `time` are the source's.
        stride: Detect on every Nth frame.
        start: Seconds since the container's start of the first frame, None for the beginning.
        end: Seconds before which the last frame begins, None for the end.
        audio: False leaves the sound out.
        codec: FFmpeg video encoder.
        crf: Constant rate factor of the encoder; None leaves the quality to the encoder.
        progress: True shows a progress bar; None shows it on a terminal, from two seconds on; a
            function is called with the frames done and the frames expected (0 where unknown).
        overwrite: Replace existing output files.
        **options: `conf`, `iou`, `nms`, `max_det`, `classes`, as for calling the detector.

    Returns:
        What was done, with every loss counted.

    Raises:
        OptionError: An option is out of range, or the output is no ".mp4".
        VideoError: The source cannot be read or has no frame in the range, an output file exists
            and `overwrite` is False, the output is the source, or the disk is full.
        RdliteError: The JSONL file cannot be written.

    Example:
        >>> summary = annotate_video(detector, "clip.mp4", "boxes.mp4", stride=3)
        >>> print(summary.frames, summary.detections, *summary.warnings)
    """
    check_count("stride", stride)
    _check_crf(crf)
    clock = _Clock()
    output, journal = Path(output), _journal(jsonl, Path(output))
    chosen = {name: value for name, value in options.items() if value is not None}
    with VideoReader(source, start=start, end=end) as reader:
        _check_outputs(reader.path, output, journal, overwrite=overwrite)
        expected = _expected_frames(reader, start, end)
        frames = clock.each("decode", reader)
        head = next(frames, None)
        if head is None:
            raise VideoError(f"{source} has no frame in the wanted range; nothing was written")
        settings = {"stride": stride, "start": start, "end": end, **detector.options}
        settings |= {name: plain(value) for name, value in chosen.items()}
        header = jsonl_header(detector.model_sha256, source=source, options=settings)
        height, width = head.image.shape[:2]
        with (
            _sink(journal, header, overwrite=overwrite) as sink,
            VideoWriter(
                output,
                reader,
                size=(width, height),
                codec=codec,
                crf=crf,
                overwrite=overwrite,
                audio=audio,
                first=None if start is None else head.ticks,
                last=reader.ticks(end),
            ) as writer,
            _progress(progress, expected) as advance,
        ):
            found = _Found(detector, chosen, stride, sink)
            for frame in chain((head,), frames):
                with clock.stage("detect"):
                    detections = found.on(frame)
                with clock.stage("draw"):
                    picture = draw(frame.image, detections)
                with clock.stage("encode"):
                    writer.write(picture, ticks=frame.ticks, duration=frame.duration)
                advance()
    return _summary(reader, found, writer, clock, output, journal)


class _Found:
    """Detect on every Nth frame, record it, and hold the boxes in between."""

    def __init__(
        self,
        detector: Detector,
        options: dict[str, Any],
        stride: int,
        sink: JsonlSink | None,
    ) -> None:
        self.frames = self.dropped_nonfinite = 0
        self.counts: Counter[str] = Counter()
        self._detect: Callable[[Any], Detections] = functools.partial(detector, **options)
        self._stride = stride
        self._sink = sink
        self._held: Detections | None = None

    def on(self, frame: Frame) -> Detections:
        height, width = frame.image.shape[:2]
        held = self._held
        # Boxes held from a frame of another size would be in the wrong place.
        if held is None or held.image_size != (width, height) or frame.index % self._stride == 0:
            self._held = held = self._detect(frame.image)
            self.frames += 1
            self.dropped_nonfinite += held.dropped_nonfinite
            self.counts.update(held.class_names)
            if self._sink is not None:
                self._sink.write(held, frame=frame.index, pts=frame.pts, time=frame.time)
        return held


class _Clock:
    """Adds up the seconds that each stage takes."""

    def __init__(self) -> None:
        self._began = perf_counter()
        self._spent = dict.fromkeys(_STAGES, 0.0)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = perf_counter()
        try:
            yield
        finally:
            self._spent[name] += perf_counter() - began

    def each(self, name: str, items: Iterable[Frame]) -> Iterator[Frame]:
        iterator = iter(items)
        while True:
            with self.stage(name):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    @property
    def seconds(self) -> float:
        return perf_counter() - self._began

    def per_frame(self, frames: int) -> dict[str, float]:
        return {name: 1e3 * spent / frames for name, spent in self._spent.items()}


def _check_crf(crf: int | None) -> None:
    if crf is not None and not (isinstance(crf, int) and 0 <= crf <= 63):
        raise OptionError(f"crf must be a whole number from 0 to 63 or None, got {crf!r}")


def _journal(jsonl: str | os.PathLike[str] | bool | None, output: Path) -> Path | None:
    if jsonl is True:
        return output.with_suffix(".jsonl")
    return Path(jsonl) if jsonl else None


def _check_outputs(source: Path, output: Path, journal: Path | None, *, overwrite: bool) -> None:
    for path in filter(None, (output, journal)):
        if path.exists() and os.path.samefile(source, path):
            raise VideoError(f"{path} is the source itself; choose another name for the output")
    mp4_target(output, overwrite=overwrite)
    if journal is not None:
        PartialFile(journal, overwrite=overwrite, error=VideoError)
        if journal == output:
            raise OptionError(f"{journal} cannot be both the video and its JSONL file")


def _sink(
    journal: Path | None, header: dict[str, Any], *, overwrite: bool
) -> contextlib.AbstractContextManager[JsonlSink | None]:
    if journal is None:
        return contextlib.nullcontext()
    return JsonlSink(journal, header, overwrite=overwrite)


def _expected_frames(reader: VideoReader, start: float | None, end: float | None) -> int:
    if start is None and end is None and reader.declared_frames:
        return reader.declared_frames
    length = min(reader.duration, reader.duration if end is None else end) - (start or 0.0)
    return round(max(0.0, length) * float(reader.rate))


@contextlib.contextmanager
def _progress(choice: Progress, total: int) -> Iterator[Callable[[], object]]:
    from tqdm import tqdm

    if callable(choice):
        done = itertools.count(1)
        yield lambda: choice(next(done), total)
        return
    show = sys.stderr.isatty() if choice is None else choice
    delay = _PROGRESS_DELAY if choice is None else 0.0
    with tqdm(total=total or None, unit="frame", delay=delay, disable=not show) as bar:
        yield bar.update


def _summary(
    reader: VideoReader,
    found: _Found,
    writer: VideoWriter,
    clock: _Clock,
    output: Path,
    journal: Path | None,
) -> VideoSummary:
    dropped = {kind: n for kind, n in reader.other_streams.items() if kind != "audio"}
    return VideoSummary(
        output=output,
        jsonl=journal,
        frames=writer.frames,
        detected_frames=found.frames,
        detections=dict(found.counts.most_common()),
        bad_packets=reader.bad_packets,
        truncated=reader.truncated,
        rescaled_frames=writer.rescaled,
        retimed_frames=writer.retimed,
        audio_copied=writer.audio.copied,
        audio_encoded=writer.audio.encoded,
        audio_dropped=writer.audio.dropped,
        audio_bad_packets=writer.audio.bad_packets,
        streams_dropped=dropped,
        dropped_nonfinite=found.dropped_nonfinite,
        seconds=clock.seconds,
        speed=clock.per_frame(writer.frames),
        warnings=reader.warnings()
        + writer.warnings()
        + _dropped(dropped)
        + nonfinite_warning(found.dropped_nonfinite),
    )


def nonfinite_warning(anchors: int) -> list[str]:
    """Return a sentence on anchors for which the network gave NaN or infinity, if there are."""
    text = f"{anchors} anchors were left out: the network gave NaN or infinity; check the model."
    return [text] if anchors else []


def _dropped(streams: dict[str, int]) -> list[str]:
    return [f"{count} {kind} streams were left out." for kind, count in streams.items()]
