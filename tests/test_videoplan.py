"""Parts: together they are the whole video, frame for frame, wherever it is cut."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdlite.errors import OptionError, VideoError
from rdlite.video import media, plan, reader
from rdlite.video.plan import plan_video
from rdlite.video.reader import VideoReader
from tests.media import clip, noise, number
from tests.parts import (
    KINDS,
    MS,
    REFRESH,
    check,
    check_counts,
    make,
    read,
)


@pytest.mark.parametrize("name", KINDS)
def test_parts_are_the_whole_video(tmp_path: Path, name: str) -> None:
    path = make(tmp_path, name)
    for part_frames, parts in ((1, 6), (30, 2)):
        plan, frames = check(path, part_frames)
        check_counts(plan, frames)
        assert len(frames) == 100
        assert len(plan.parts) >= parts
        # Frames that are shown before a keyframe and stored behind it belong to the part before.
        assert min(part.frames for part in plan.parts) >= part_frames - 8


@pytest.mark.parametrize("name", ["open.mp4", "mpeg2.ts", "hevc.ts", "vfr.mkv", "h264.flv"])
@pytest.mark.parametrize("span", [{"start": 1.5}, {"end": 2.02}, {"start": 0.3, "end": 2.5}])
def test_parts_of_a_range_are_the_range(tmp_path: Path, name: str, span: dict[str, float]) -> None:
    plan, frames = check(make(tmp_path, name), 1, **span)
    check_counts(plan, frames)
    assert (plan.start, plan.end) == (span.get("start"), span.get("end"))
    assert len(plan.parts) > 1


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_parts_are_the_whole_whatever_the_keyframes(tmp_path: Path, data: st.DataObject) -> None:
    draw: Callable[..., Any] = data.draw
    steps = draw(st.lists(st.integers(1, 90), min_size=30, max_size=30))
    bframes, is_open = draw(st.integers(0, 4)), draw(st.booleans())
    path = clip(
        tmp_path / draw(st.sampled_from(["a.mp4", "a.mkv", "a.ts", "a.nut"])),
        60,
        time_base=MS,
        ticks=list(accumulate(steps * 2)),
        keys=draw(st.sets(st.integers(1, 59), max_size=12)),
        gop_size=draw(st.integers(5, 300)),
        options={"x264-params": f"bframes={bframes}:open-gop={int(is_open)}", "preset": "faster"},
    )
    start, length = draw(st.floats(0, 1)), draw(st.floats(0.2, 4))
    span = draw(st.sampled_from([{}, {"start": start}, {"start": start, "end": start + length}]))
    plan, frames = check(path, draw(st.integers(1, 40)), **span)
    check_counts(plan, frames)


def test_stride_goes_on_through_the_parts(tmp_path: Path) -> None:
    path = make(tmp_path, "h264.mp4")
    found = []
    for part in plan_video(path, part_frames=20).parts:
        with VideoReader(path, stride=7, part=part) as reader:
            found += [number(frame.image) for frame in reader]
    assert found == list(range(0, 100, 7))


def test_a_plan_is_the_same_each_time_and_may_be_sent_to_others(tmp_path: Path) -> None:
    path = make(tmp_path, "h264.mkv")
    plan = plan_video(path, start=1.0, part_frames=20)
    assert plan == plan_video(path, start=1.0, part_frames=20) == pickle.loads(pickle.dumps(plan))
    assert plan != plan_video(path, part_frames=20)


def test_a_short_rest_is_no_part_of_its_own(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 100, gop_size=30, options={"x264-params": "scenecut=0"})
    assert [part.frames for part in plan_video(path, part_frames=30).parts] == [30, 30, 40]
    assert [part.frames for part in plan_video(path, part_frames=60).parts] == [100]


def test_a_change_of_resolution_does_not_stop_cutting(tmp_path: Path) -> None:
    kind: dict[str, Any] = {"gop_size": 12, "time_base": Fraction(1, 90_000)}
    times = [3600 * n for n in range(300)]
    first = clip(tmp_path / "1.ts", 150, ticks=times[:150], **kind)
    second = clip(tmp_path / "2.ts", 150, ticks=times[150:], size=(128, 80), **kind)
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    plan, frames = check(path, 1)
    assert [shape[:2] for _, _, shape, _ in frames] == [(64, 96)] * 150 + [(80, 128)] * 150
    starts = [part.frames_before for part in plan.parts]
    assert any(0 < n < 150 for n in starts) and any(n > 150 for n in starts)


def packets_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets an entry for every packet read."""
    counted: list[int] = []

    def read_packets(*args: Any) -> Any:
        for packet in original(*args):
            counted.append(1)
            yield packet

    original = media.read_packets
    monkeypatch.setattr(media, "read_packets", read_packets)
    monkeypatch.setattr(reader, "read_packets", read_packets)
    return counted


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.mpg", "a.avi", "a.asf", "a.flv"])
def test_parts_are_reached_without_reading_what_comes_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    codec = {"a.mpg": "mpeg2video", "a.avi": "mpeg4", "a.asf": "wmv2"}.get(name, "libx264")
    path = clip(tmp_path / name, 1200, codec=codec, gop_size=25)
    counted = packets_read(monkeypatch)
    plan = plan_video(path, part_frames=100)
    assert len(counted) < 1.7 * 1200
    counted.clear()
    for part in plan.parts:
        read(path, part=part)
    assert len(plan.parts) > 7
    assert 1200 <= len(counted) < 1.7 * 1200


def test_files_without_an_index_have_fewer_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_MAX_UNINDEXED_PARTS", 4)
    assert 2 <= len(check(make(tmp_path, "live.mkv"), 1)[0].parts) <= 4
    for name in ("h264.mkv", "h264.mp4", "h264.ts"):
        assert len(plan_video(make(tmp_path, name), part_frames=1).parts) > 6


def test_planning_gives_up_soon_where_no_keyframe_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip(tmp_path / "a.ts", noise(400), options={"x264-params": REFRESH})
    counted = packets_read(monkeypatch)
    assert len(plan_video(path, part_frames=1).parts) == 1
    assert 400 < len(counted) < 1200


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"part_frames": 0}, OptionError, "part_frames"),
        ({"start": -1}, OptionError, "start"),
        ({"start": 60}, VideoError, "no frame in the wanted range"),
    ],
)
def test_impossible_plans_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], word: str
) -> None:
    path = clip(tmp_path / "a.mp4", 5)
    with pytest.raises(error, match=word):
        plan_video(path, **options)


def test_a_part_has_a_range_of_its_own(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 5)
    (part,) = plan_video(path).parts
    with pytest.raises(OptionError, match="plan_video"):
        VideoReader(path, start=0.1, part=part)
    assert [number(frame.image) for frame in VideoReader(path, part=replace(part, last=1024))] == [
        0,
        1,
    ]


@pytest.mark.slow
def test_a_million_packets_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.mkv"
    small = clip(tmp_path / "small.mkv", [np.full((16, 16, 3), 90, np.uint8)] * 2, size=(16, 16))
    with av.open(str(small)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        key, other = [bytes(p) for p in source.demux(video=0) if p.size]
        for n in range(1_000_000):
            packet = av.Packet(other if n % 25 else key)
            packet.is_keyframe, packet.stream = n % 25 == 0, stream
            packet.pts = packet.dts = 40 * n
            packet.time_base = MS
            output.mux(packet)
    tracemalloc.start()
    plan = plan_video(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.frames == 1_000_000
    assert peak < 64 * 2**20
