"""A video made in parts, at once or piece by piece, is the same to the byte."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rdlite.errors import VideoError
from rdlite.sinks import FORMATS
from rdlite.sinks.base import to_line
from rdlite.video.job import clean, open_job
from rdlite.video.parts import make_parts
from rdlite.video.pipeline import annotate_video
from rdlite.video.reader import VideoReader
from rdlite.video.summary import finish
from tests.command import lines
from tests.media import TwoBoxes, clip, frame_numbers, frame_times, sound_packets
from tests.videojobs import FRAMES, Follower, content, fail_at, job, run

# In parts.


def test_parts_are_joined_without_a_seam(source: Path, tmp_path: Path) -> None:
    detector = Follower()
    summary = run(job(source, tmp_path), detector)
    output = tmp_path / "out.mp4"
    assert (summary.frames, summary.warnings) == (FRAMES, [])
    assert frame_times(output) == frame_times(source)
    assert frame_numbers(output) == frame_numbers(source)
    assert sound_packets(output) == sound_packets(source)
    with av.open(str(output)) as result:
        decoded = [packet.dts for packet in result.demux(video=0) if packet.size]
    assert decoded == sorted(set(decoded))
    assert len(detector.sizes) == FRAMES
    with VideoReader(source) as reader:
        expected = [
            to_line(detector(frame.image), frame=frame.index, pts=frame.pts, time=frame.time)
            for frame in reader
        ]
    assert lines(tmp_path / "out.jsonl")[1:] == expected
    assert len({str(line["detections"]) for line in expected}) > 100


def test_every_order_and_grouping_gives_the_same_bytes(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    run(job(source, tmp_path), groups=lambda parts: [parts[2:], parts[:1], parts[1:2]])
    assert content(tmp_path) == whole


def test_a_job_and_its_plan_may_be_sent_to_another_process(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    wanted = job(source, tmp_path)
    with open_job(wanted, Follower()) as opened:
        there = pickle.loads(pickle.dumps((wanted, opened.plan, opened.header)))
        assert there == (wanted, opened.plan, opened.header)
        make_parts(*there, Follower(), opened.pending, lambda frames: None)
        finish(*there)
        clean(wanted)
    assert content(tmp_path) == whole


def test_every_nth_frame_is_recorded_and_a_part_begins_with_boxes_of_its_own(
    source: Path, tmp_path: Path
) -> None:
    detector = Follower()
    summary = run(job(source, tmp_path, stride=7), detector)
    found = lines(tmp_path / "out.jsonl")[1:]
    assert [line["frame"] for line in found] == list(range(0, FRAMES, 7))
    assert summary.detected_frames == len(found) == summary.detections["person"]
    assert len(detector.sizes) == len(found) + 2  # the first frames of the other two parts


def test_a_job_without_a_video_records_the_same(source: Path, tmp_path: Path) -> None:
    run(job(source, tmp_path, stride=7))
    detector = Follower()
    other = job(source, tmp_path, video=None, results=tmp_path / "b.jsonl", stride=7)
    summary = run(other, detector)
    annotated = lines(tmp_path / "out.jsonl")
    assert annotated[0].pop("video")["codec"] == "libx264"
    assert lines(tmp_path / "b.jsonl") == annotated
    assert (summary.output, summary.results) == (None, tmp_path / "b.jsonl")
    assert summary.frames == FRAMES
    assert len(detector.sizes) == summary.detected_frames == len(range(0, FRAMES, 7))
    assert sorted(os.listdir(tmp_path)) == ["b.jsonl", "out.jsonl", "out.mp4"]


def test_a_range_is_cut_like_the_whole(source: Path, tmp_path: Path) -> None:
    times = frame_times(source)
    start, end = times[120], times[700]
    summary = run(job(source, tmp_path, start=float(start), end=float(end)))
    assert summary.frames == 580
    assert frame_numbers(tmp_path / "out.mp4") == [n % 256 for n in range(120, 700)]
    assert frame_times(tmp_path / "out.mp4") == [t - start for t in times[120:700]]


def test_frames_are_counted_through_where_some_are_damaged(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 600, gop_size=25)
    with av.open(str(source)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(source.read_bytes())
    for position, size in packets[110:115]:
        data[position : position + size] = b"\xff" * size
    source.write_bytes(data)
    summary = run(job(source, tmp_path, stride=10))
    assert summary.bad_packets > 0
    assert 570 < summary.frames < 600
    assert len(frame_times(tmp_path / "out.mp4")) == summary.frames
    with VideoReader(source) as reader:
        index = {frame.pts: frame.index for frame in reader}
    found = lines(tmp_path / "out.jsonl")[1:]
    assert len(found) == summary.detected_frames > 55
    assert [line["frame"] for line in found] == [index[line["pts"]] for line in found]


@pytest.mark.parametrize("format", FORMATS)
def test_results_come_in_every_format(source: Path, tmp_path: Path, format: str) -> None:
    results = tmp_path / f"found{FORMATS[format].ending}"
    run(job(source, tmp_path, video=None, results=results, format=format, stride=100))
    assert os.listdir(tmp_path) == [results.name]
    files = sorted(results.rglob("*")) if results.is_dir() else [results]
    assert sum(path.stat().st_size for path in files) > 500


# Errors.


@pytest.mark.parametrize("stage", ["report", "detect"])
@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_errors_reach_the_caller_and_whole_parts_are_kept(
    source: Path, tmp_path: Path, whole: dict[str, bytes], stage: str, error: BaseException
) -> None:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))

    def report(done: int, total: int) -> None:
        assert total == FRAMES
        if stage == "report" and done == 600:
            raise error

    detector = fail_at(600, error) if stage == "detect" else Follower()
    output = tmp_path / "out.mp4"
    with pytest.raises(type(error)) as caught:
        annotate_video(detector, source, output, progress=report)
    assert caught.value is error
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files
    assert os.listdir(tmp_path) == [".out.mp4.rdlite"]
    assert "2 of 3 parts" in error.__notes__[-1] and "resume" in error.__notes__[-1]
    again, calls = Follower(), []
    annotate_video(
        again, source, output, resume=True, progress=lambda done, total: calls.append(done)
    )
    assert content(tmp_path) == whole
    assert len(again.sizes) < 350
    assert calls[-1] == FRAMES and calls[0] == FRAMES - len(again.sizes) + 1


def test_an_unreadable_packet_storm_reaches_the_caller(tmp_path: Path) -> None:
    random_bytes = np.random.default_rng(0)
    images = [random_bytes.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(120)]
    source = clip(tmp_path / "a.mp4", images, options={"bf": "0"}, gop_size=120)
    with av.open(str(source)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(source.read_bytes())
    for position, size in packets[40:]:
        data[position : position + size] = b"\xff" * size
    source.write_bytes(data)
    before = threading.active_count()
    with pytest.raises(VideoError, match="packets in a row cannot be decoded"):
        annotate_video(TwoBoxes(), source, tmp_path / "out.mp4")
    assert threading.active_count() == before
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("broken", ["draw", "PartWriter", "open_sink"])
def test_errors_of_the_writing_thread_reach_the_caller(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise LookupError(broken)

    monkeypatch.setattr(f"rdlite.video.parts.{broken}", fail)
    before = threading.active_count()
    with pytest.raises(LookupError, match=broken):
        annotate_video(TwoBoxes(), source, tmp_path / "out.mp4")
    assert threading.active_count() == before
    assert os.listdir(tmp_path) == []


def test_a_keyboard_interrupt_stops_at_once(source: Path, tmp_path: Path) -> None:
    def interrupt(calls: int) -> None:
        if calls == 20:
            signal.raise_signal(signal.SIGINT)

    detector = Follower(interrupt)
    with pytest.raises(KeyboardInterrupt):
        annotate_video(detector, source, tmp_path / "out.mp4")
    assert len(detector.sizes) == 20
    assert os.listdir(tmp_path) == []


# Going on.
