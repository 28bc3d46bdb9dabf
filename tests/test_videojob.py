"""A video made in parts: at once, piece by piece, or gone on with, it is the same to the byte."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rdlite.errors import OptionError, RdliteError, VideoError
from rdlite.pipeline import annotate_video
from rdlite.results import Detections
from rdlite.sinkbase import to_line
from rdlite.sinks import FORMATS
from rdlite.video import VideoReader
from rdlite.videojob import VideoJob, clean, open_job
from rdlite.videoparts import make_parts
from rdlite.videosummary import VideoSummary, finish
from tests.command import lines, script
from tests.media import Sound, TwoBoxes, clip, frame_numbers, frame_times, sound_packets

Bgr = np.ndarray
FRAMES = 800  # three parts


class Follower(TwoBoxes):
    """A detector whose one box is where the picture's number says, and that counts its calls."""

    def __init__(self, fail: Callable[[int], None] = lambda calls: None) -> None:
        super().__init__()
        self._fail = fail

    def __call__(self, image: Bgr, **options: Any) -> Detections:
        found = super().__call__(image, **options)
        self._fail(len(self.sizes))
        shift = image[:16].mean() / 10
        return Detections(
            xyxy=found.xyxy[:1] + np.float32(shift),
            confidence=found.confidence[:1],
            class_id=found.class_id[:1],
            names=self.names,
            category_ids=self.category_ids,
            image_size=found.image_size,
        )


def fail_at(call: int, error: BaseException) -> Follower:
    def fail(calls: int) -> None:
        if calls == call:
            raise error

    return Follower(fail)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 numbered frames at uneven times, a keyframe every 50, and sound."""
    ticks = [0, *np.cumsum(np.random.default_rng(5).integers(1, 80, FRAMES - 1)).tolist()]
    return clip(
        tmp_path_factory.mktemp("source") / "long.mkv", FRAMES, gop_size=50, ticks=ticks,
        time_base=Fraction(1, 1000), sounds=[Sound("flac", 48000, seconds=30.0)],
    )  # fmt: skip


def job(source: Path, folder: Path, **changes: Any) -> VideoJob:
    values: dict[str, Any] = {"video": folder / "out.mp4", "results": folder / "out.jsonl"}
    return VideoJob(source, **(values | changes))


def run(
    job: VideoJob,
    detector: Any = None,
    groups: Callable[[tuple[Any, ...]], Iterable[Any]] = lambda parts: [parts],
) -> VideoSummary:
    """Do a job, its parts made in groups."""
    detector = detector or Follower()
    with open_job(job, detector) as opened:
        for parts in groups(opened.pending):
            make_parts(job, opened.plan, opened.header, detector, parts, lambda frames: None)
        summary = finish(job, opened.plan, opened.header)
        clean(job)
    return summary


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The outputs for `source` of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    run(job(source, folder))
    return content(folder)


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
    assert lines(tmp_path / "b.jsonl") == lines(tmp_path / "out.jsonl")
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

    monkeypatch.setattr(f"rdlite.videoparts.{broken}", fail)
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


def interrupted(source: Path, folder: Path, **options: Any) -> None:
    with pytest.raises(RuntimeError):
        annotate_video(fail_at(600, RuntimeError("stop")), source, folder / "out.mp4", **options)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"stride": 2}, "stride was 1, now 2"),
        ({"conf": 0.7}, "conf was None, now 0.7"),
        ({"preset": "faster"}, "preset was 'veryfast', now 'faster'"),
    ],
)
def test_other_settings_are_not_mixed(
    source: Path, tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    interrupted(source, tmp_path)
    output = tmp_path / "out.mp4"
    with pytest.raises(VideoError, match=text):
        annotate_video(Follower(), source, output, resume=True, **changes)
    assert len(os.listdir(tmp_path / ".out.mp4.rdlite")) > 4
    again = Follower()
    annotate_video(again, source, output, resume=True, overwrite=True, **changes)
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "out.mp4"]
    assert len(again.sizes) >= FRAMES / changes.get("stride", 1)


def test_a_source_that_has_changed_is_not_gone_on_with(source: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.mkv"
    own.write_bytes(source.read_bytes())
    interrupted(own, tmp_path)
    os.utime(own, ns=(0, 0))
    with pytest.raises(VideoError, match="mtime_ns was"):
        annotate_video(Follower(), own, tmp_path / "out.mp4", resume=True)


def test_a_source_that_changes_meanwhile_is_not_mixed(source: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.mkv"
    own.write_bytes(source.read_bytes())
    detector = Follower(lambda calls: os.utime(own, ns=(0, 0)) if calls == 200 else None)
    with pytest.raises(VideoError, match="has changed"):
        annotate_video(detector, own, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_finished_parts_are_not_thrown_away_unasked(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    interrupted(source, tmp_path)
    with pytest.raises(VideoError, match=r"2 finished parts .*--resume"):
        annotate_video(Follower(), source, tmp_path / "out.mp4")
    again = Follower()
    annotate_video(again, source, tmp_path / "out.mp4", overwrite=True)
    assert len(again.sizes) == FRAMES
    assert content(tmp_path) == whole


def test_resume_begins_where_nothing_was_begun(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    annotate_video(Follower(), source, tmp_path / "out.mp4", resume=True)
    assert content(tmp_path) == whole
    with pytest.raises(VideoError, match="exists already"):
        annotate_video(Follower(), source, tmp_path / "out.mp4", resume=True)


def test_finishing_may_be_done_again(source: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    wanted = job(source, tmp_path, resume=True)
    with pytest.raises(RuntimeError), open_job(wanted, Follower()) as opened:
        make_parts(
            wanted, opened.plan, opened.header, Follower(), opened.pending, lambda frames: None
        )
        finish(wanted, opened.plan, opened.header)
        assert finish(wanted, opened.plan, opened.header).frames == FRAMES
        (tmp_path / "out.jsonl").unlink()
        raise RuntimeError("killed between the two outputs")
    again = Follower()
    run(wanted, again)
    assert again.sizes == []
    assert content(tmp_path) == whole


def test_a_part_that_is_missing_is_not_joined_over(source: Path, tmp_path: Path) -> None:
    wanted = job(source, tmp_path)
    with pytest.raises(VideoError, match=r"part 0 of .* is not made"):
        with open_job(wanted, Follower()) as opened:
            finish(wanted, opened.plan, opened.header)
    assert os.listdir(tmp_path) == []


def test_a_worker_of_an_earlier_job_cannot_write_into_a_later_one(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    old = job(source, tmp_path, stride=3)
    with pytest.raises(RuntimeError), open_job(old, Follower()) as opened:
        raise RuntimeError("the driver is killed, its worker lives on")
    wanted = job(source, tmp_path)
    with open_job(wanted, Follower()) as now:
        with pytest.raises(VideoError, match="taken over"):
            make_parts(old, opened.plan, opened.header, Follower(), opened.pending, print)
        make_parts(wanted, now.plan, now.header, Follower(), now.pending, lambda frames: None)
        finish(wanted, now.plan, now.header)
        clean(wanted)
    assert content(tmp_path) == whole


def test_an_output_has_one_writer(source: Path, tmp_path: Path) -> None:
    with open_job(job(source, tmp_path), Follower()):
        with pytest.raises(RdliteError, match=r"out\.mp4\.lock is held by process"):
            annotate_video(Follower(), source, tmp_path / "out.mp4", overwrite=True)
        with pytest.raises(RdliteError, match=r"out\.jsonl\.lock is held by process"):
            annotate_video(Follower(), source, tmp_path / "b.mp4", jsonl=tmp_path / "out.jsonl")
    assert os.listdir(tmp_path) == [".out.mp4.rdlite"]


def test_leftovers_of_killed_processes_are_removed(
    source: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    (tmp_path / ".out.mp4.partial-1-0.mp4").write_bytes(b"torn")
    (tmp_path / ".out.jsonl.partial-1-0.jsonl").write_bytes(b"torn")
    run(job(source, tmp_path))
    assert content(tmp_path) == whole


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"encoder_threads": 0}, OptionError),
        ({"preset": "quick"}, OptionError),
        ({"format": "xls"}, OptionError),
        ({"video": None, "results": None}, OptionError),
        ({"results": Path("out.mp4")}, OptionError),
    ],
)
def test_jobs_that_cannot_be_done_are_refused(
    source: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception]
) -> None:
    if changes.get("results"):
        changes = {"results": tmp_path / "out.mp4"}
    with pytest.raises(error):
        run(job(source, tmp_path, **changes))
    assert os.listdir(tmp_path) == []


# Killed.

KILLED = """
import sys
from rdlite.pipeline import annotate_video
from tests.test_videojob import Follower
tell = lambda done, total: done % 10 or print(done, flush=True)
annotate_video(Follower(), sys.argv[1], sys.argv[2], resume=True, progress=tell)
"""


def resume_and_kill(source: Path, output: Path, frame: int, seconds: float) -> int:
    """Go on with a job and kill it some seconds after a frame; returns how it ended."""
    process = subprocess.Popen(script(KILLED, source, output), stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= frame:
                time.sleep(seconds)
                process.kill()
    return process.returncode


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
def test_kill_and_resume_give_the_same_bytes(
    source: Path, tmp_path: Path, whole: dict[str, bytes], rounds: int
) -> None:
    chance, killed = random.Random(rounds), -signal.SIGKILL
    for n in range(rounds):
        output = tmp_path / str(n) / "out.mp4"
        output.parent.mkdir()
        early, later = chance.randrange(FRAMES // 2), chance.randrange(FRAMES)
        assert resume_and_kill(source, output, early, 0) == killed
        resume_and_kill(source, output, later, 0)
        resume_and_kill(source, output, FRAMES, chance.uniform(0, 0.1))  # while it is joined
        if job(source, output.parent).folder.exists() or not output.exists():
            assert resume_and_kill(source, output, FRAMES + 1, 0) == 0
        assert {name: content(output.parent)[name] for name in whole} == whole
        assert set(os.listdir(output.parent)) - set(whole) <= {".out.mp4.lock", ".out.jsonl.lock"}
