"""Make parts of a video: decoding, detection, and drawing and encoding side by side."""

from __future__ import annotations

import contextlib
import functools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from rdlite.annotate import draw
from rdlite.errors import VideoError
from rdlite.overlap import background, prefetch
from rdlite.results import Detections
from rdlite.sinks import open_sink
from rdlite.storage.partial import PartialFile
from rdlite.video.job import VideoJob
from rdlite.video.plan import Part, VideoPlan
from rdlite.video.reader import Frame, VideoReader
from rdlite.video.writer import Encoding, PartWriter, Piece, naming_errors

if TYPE_CHECKING:
    from rdlite.detector import Detector

STAGES = ("decode", "detect", "draw", "encode")
_AHEAD = 2  # frames that wait between two stages


@dataclass(slots=True)
class Counts:
    """What was done for a part of a video; the sum of two is that for both.

    Attributes:
        frames: Frames read.
        detected_frames: Every Nth frame, whose objects are recorded and counted.
        detections: Objects found on those frames, by class name.
        dropped_nonfinite: Anchors left out there, because the network gave NaN or infinity.
        bad_packets: Packets that could not be read or decoded.
        missing_pts: Frames without a time stamp.
        truncated: 1 if the source ends before the frames that it declares.
        rescaled: Frames scaled to the size of the first one.
        retimed: Frames moved by the least that puts them after the frame before.
        decode: Seconds spent on decoding; likewise `detect`, `draw` and `encode`.
        detect: See there.
        draw: See there.
        encode: See there.
        seconds: From the end of the part that was made before to the end of this one.
    """

    frames: int = 0
    detected_frames: int = 0
    detections: Counter[str] = field(default_factory=Counter)
    dropped_nonfinite: int = 0
    bad_packets: int = 0
    missing_pts: int = 0
    truncated: int = 0
    rescaled: int = 0
    retimed: int = 0
    decode: float = 0.0
    detect: float = 0.0
    draw: float = 0.0
    encode: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        pairs = zip(self.as_dict().values(), other.as_dict().values(), strict=True)
        return Counts(*(mine + theirs for mine, theirs in pairs))

    def as_dict(self) -> dict[str, Any]:
        """Return all values by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @contextlib.contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Add the time that the `with` block takes to a stage."""
        began = perf_counter()
        try:
            yield
        finally:
            setattr(self, stage, getattr(self, stage) + perf_counter() - began)


def make_parts(
    job: VideoJob,
    plan: VideoPlan,
    header: Mapping[str, Any],
    detector: Detector,
    parts: Iterable[Part],
    report: Callable[[int], object],
) -> None:
    """Make parts of a video in the folder of its job, each whole or not at all.

    Any process on any machine may do this that sees the source and the folder; a part is the
    same, byte for byte, whoever makes it, and whatever else is made with it.

    Args:
        job: What is wanted.
        plan: As `open_job` gave it.
        header: As `open_job` gave it; a folder that another job has taken over is not written to.
        detector: A `Detector`, or anything that is called the same way.
        parts: Those to make.
        report: Called in this thread with the number of frames done since the last call.

    Raises:
        OptionError: The encoder cannot be used.
        VideoError: The source cannot be read, or the folder cannot be written or is another's.
        RdliteError: The detections cannot be written.
    """
    with VideoReader(job.source) as reader:
        encoding = encoding_of(job, plan, reader) if job.video else None
    write = functools.partial(_write, job, header, encoding)
    with prefetch(_read(job, parts), _AHEAD) as frames, background(write, _AHEAD) as put:
        done = 0
        for item in _detect(detector, job, frames):
            put(item)
            total = item.frame.index + 1 if item.frame else item.counts.frames
            if total > done:
                report(total - done)
            done = total if item.frame else 0


def read_part(job: VideoJob, part: Part) -> tuple[Counts, Piece | None]:
    """Return what was done for a part that is made, and its place in the annotated video.

    Raises:
        VideoError: It is not made.
    """
    try:
        made = json.loads(job.part_path(part, ".json").read_bytes())
    except (OSError, ValueError) as error:
        raise VideoError(f"part {part.index} of {job.source} is not made yet: {error}") from error
    counts = Counts(**made["counts"] | {"detections": Counter(made["counts"]["detections"])})
    return counts, made["piece"] and Piece(**made["piece"])


def encoding_of(job: VideoJob, plan: VideoPlan, reader: VideoReader) -> Encoding:
    """Return how the parts of a video are encoded; `reader` was just opened."""
    return Encoding.like(
        reader,
        size=plan.size,
        sample_aspect_ratio=plan.sample_aspect_ratio,
        codec=job.codec,
        crf=job.crf,
        preset=job.preset,
        threads=job.encoder_threads,
    )


class _Item(NamedTuple):
    """A frame on its way from stage to stage, or the end of its part.

    Attributes:
        part: The part.
        counts: Those of the part; every stage adds its own.
        frame: None at the end of the part.
        detections: What to draw, None before the detector has looked.
        wanted: The detections are to be recorded.
    """

    part: Part
    counts: Counts
    frame: Frame | None
    detections: Detections | None = None
    wanted: bool = False


def _read(job: VideoJob, parts: Iterable[Part]) -> Iterator[_Item]:
    stride = 1 if job.video else job.stride
    for part in parts:
        counts = Counts()
        with VideoReader(job.source, stride=stride, part=part) as reader:
            frames = iter(reader)
            while True:
                with counts.clock("decode"):
                    frame = next(frames, None)
                if frame is None:
                    break
                yield _Item(part, counts, frame)
        counts.frames = reader.frames_read
        counts.bad_packets, counts.missing_pts = reader.bad_packets, reader.missing_pts
        counts.truncated = int(reader.truncated)
        yield _Item(part, counts, None)


def _detect(detector: Detector, job: VideoJob, items: Iterable[_Item]) -> Iterator[_Item]:
    """Detect on every Nth frame, and hold the boxes in between."""
    held: Detections | None = None
    for item in items:
        part, counts, frame = item.part, item.counts, item.frame
        if frame is None:
            held = None  # a part depends on its own frames alone
            yield item
            continue
        wanted = (part.frames_before + frame.index) % job.stride == 0
        with counts.clock("detect"):
            # Boxes held from a frame of another size would be in the wrong place.
            if wanted or held is None or held.image_size != frame.image.shape[1::-1]:
                held = detector(frame.image, **job.options)
        if wanted:
            counts.detected_frames += 1
            counts.dropped_nonfinite += held.dropped_nonfinite
            counts.detections.update(held.class_names)
        yield item._replace(detections=held, wanted=wanted)


def _write(
    job: VideoJob, header: Mapping[str, Any], encoding: Encoding | None, items: Iterator[_Item]
) -> None:
    began = perf_counter()
    for part, group in groupby(items, key=lambda item: item.part):
        job.check(header)
        counts, piece = _write_part(job, header, encoding, part, group)
        counts.seconds, began = perf_counter() - began, perf_counter()
        target = PartialFile(job.part_path(part, ".json"), overwrite=True, error=VideoError)
        made = {"counts": counts.as_dict(), "piece": piece and asdict(piece)}
        with naming_errors(f"{target.path} cannot be written"):
            target.partial.write_text(json.dumps(made))
        target.commit()


def _write_part(
    job: VideoJob,
    header: Mapping[str, Any],
    encoding: Encoding | None,
    part: Part,
    items: Iterator[_Item],
) -> tuple[Counts, Piece | None]:
    counts = Counts()
    with contextlib.ExitStack() as files:
        path = job.part_path(part, ".jsonl")
        sink = files.enter_context(open_sink("jsonl", path, header=header, overwrite=True))
        pictures = None
        for _, counts, frame, detections, wanted in items:
            if frame is None or detections is None:
                break
            if wanted:
                sink.write(detections, frame=frame.index, pts=frame.pts, time=frame.time)
            if encoding is not None:
                if pictures is None:
                    path = job.part_path(part, ".mp4")
                    pictures = files.enter_context(PartWriter(path, encoding, name=job.video))
                with counts.clock("draw"):
                    image = draw(frame.image, detections, in_place=True)
                with counts.clock("encode"):
                    pictures.write(image, ticks=frame.ticks, duration=frame.duration)
    if pictures is None:
        return counts, None
    counts.rescaled, counts.retimed = pictures.rescaled, pictures.retimed
    return counts, pictures.piece
