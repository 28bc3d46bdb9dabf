"""Join the parts of a video to what was wanted, and count what could not be kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from rdlite.convert import copy_lines
from rdlite.errors import ResultFileError, VideoError
from rdlite.sinks import Sink, open_sink
from rdlite.storage.journal import read_journal
from rdlite.video.audio import AudioCopier
from rdlite.video.job import VideoJob
from rdlite.video.join import join
from rdlite.video.parts import STAGES, Counts, encoding_of, read_part
from rdlite.video.plan import Part, VideoPlan
from rdlite.video.reader import VideoReader
from rdlite.wording import count

__all__ = ["VideoSummary"]


@dataclass(frozen=True, slots=True)
class VideoSummary:
    """What became of a video, and everything that could not be kept.

    Attributes:
        output: The annotated video, None if there is none.
        results: The file of detections, None if there is none.
        frames: Frames read, and written if there is a video.
        detected_frames: Every Nth frame, whose objects are recorded and counted.
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
        seconds: Time spent on the parts and on joining them, whichever process spent it.
        speed: Milliseconds per frame in `decode`, `detect`, `draw` and `encode`, which overlap.
        warnings: One sentence for each thing that was left out or changed; empty when all is well.
    """

    output: Path | None
    results: Path | None
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


def finish(job: VideoJob, plan: VideoPlan, header: Mapping[str, Any]) -> VideoSummary:
    """Join all parts, which have been made, and give the outputs their names.

    The video gets its name before the detections. All may be done again until the job is cleaned
    up, and gives the same files.

    Raises:
        VideoError: A part is missing, the folder is another job's, or the video cannot be written.
        RdliteError: The detections cannot be written.
    """
    began = perf_counter()
    job.check(header)
    parts = {part: read_part(job, part) for part in plan.parts}
    total = sum((counts for counts, _ in parts.values()), Counts())
    with VideoReader(job.source, start=job.start) as reader, _sink(job, header) as sink:
        warnings = _damage(reader, total)
        if sink is not None:
            frames = {part: counts.frames for part, (counts, _) in parts.items()}
            copy_lines(header, _lines(job, frames), sink)
            warnings += sink.warnings()
        audio = _audio(job, plan, reader)
        if job.video is not None:
            encoding = encoding_of(job, plan, reader)
            pieces = {job.part_path(part, ".mp4"): p for part, (_, p) in parts.items() if p}
            zero = 0 if job.start is None else plan.first_ticks
            total.retimed += join(job.video, reader, pieces, audio, zero=zero, step=encoding.step)
            warnings += _changes(total, audio, plan) + encoding.warnings()
    total.seconds += perf_counter() - began
    return _summary(job, reader, total, audio, warnings)


def _sink(
    job: VideoJob, header: Mapping[str, Any]
) -> contextlib.AbstractContextManager[Sink | None]:
    if job.results is None:
        return contextlib.nullcontext()
    return open_sink(job.format, job.results, header=header, overwrite=True)


def _audio(job: VideoJob, plan: VideoPlan, reader: VideoReader) -> AudioCopier:
    first = None if job.start is None else plan.first_ticks
    copy = job.audio and job.video is not None
    return AudioCopier(reader, first=first, last=reader.ticks(job.end), copy=copy)


def _lines(job: VideoJob, frames: Mapping[Part, int]) -> Iterator[dict[str, Any]]:
    """Yield the lines of all parts, their frames counted through."""
    before = 0
    for part, number in frames.items():
        try:
            _, lines = read_journal(job.part_path(part, ".jsonl"))
            for line in lines:
                yield line | {"frame": line["frame"] + before}
        except ResultFileError as error:
            job.part_path(part, ".json").unlink(missing_ok=True)  # so that it is made anew
            raise VideoError(f"part {part.index} of {job.source} is damaged: {error}") from error
        before += number


def _damage(reader: VideoReader, total: Counts) -> list[str]:
    # The sentences are the reader's, the numbers those of all parts.
    reader.frames_read, reader.truncated = total.frames, bool(total.truncated)
    reader.bad_packets, reader.missing_pts = total.bad_packets, total.missing_pts
    return reader.warnings() + nonfinite_warning(total.dropped_nonfinite)


def nonfinite_warning(anchors: int) -> list[str]:
    """Return a sentence on anchors for which the network gave NaN or infinity, if there are."""
    left_out = count(anchors, "anchor was", "anchors were")
    text = f"{left_out} left out: the network gave NaN or infinity; check the model."
    return [text] if anchors else []


def _changes(total: Counts, audio: AudioCopier, plan: VideoPlan) -> list[str]:
    width, height = plan.size
    packets = count(audio.bad_packets, "packet of sound was", "packets of sound were")
    rescaled = count(total.rescaled, "frame was", "frames were")
    retimed = count(total.retimed, "frame was", "frames were")
    sentences = {
        f"{packets} left out, damaged or out of order.": audio.bad_packets,
        f"{rescaled} scaled to {width}x{height}.": total.rescaled,
        f"{retimed} moved behind the one before.": total.retimed,
    }
    return audio.notes + [text for text, applies in sentences.items() if applies]


def _summary(
    job: VideoJob, reader: VideoReader, total: Counts, audio: AudioCopier, warnings: list[str]
) -> VideoSummary:
    others = {kind: n for kind, n in reader.other_streams.items() if kind != "audio"}
    dropped = others if job.video else {}
    per_frame = 1e3 / max(1, total.frames)
    return VideoSummary(
        output=job.video,
        results=job.results,
        frames=total.frames,
        detected_frames=total.detected_frames,
        detections=dict(total.detections.most_common()),
        bad_packets=total.bad_packets,
        truncated=bool(total.truncated),
        rescaled_frames=total.rescaled,
        retimed_frames=total.retimed,
        audio_copied=audio.copied,
        audio_encoded=audio.encoded,
        audio_dropped=audio.dropped,
        audio_bad_packets=audio.bad_packets,
        streams_dropped=dropped,
        dropped_nonfinite=total.dropped_nonfinite,
        seconds=total.seconds,
        speed={stage: per_frame * getattr(total, stage) for stage in STAGES},
        warnings=warnings
        + [
            f"{count(number, f'{kind} stream was', f'{kind} streams were')} left out."
            for kind, number in dropped.items()
        ],
    )
