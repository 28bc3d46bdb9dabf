"""Parts: together they are the whole video, frame for frame, wherever it is cut."""

from __future__ import annotations

import pickle
import re
import tracemalloc
import zlib
from collections.abc import Callable, Collection
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

from rdlite import media, video, videoplan
from rdlite.errors import OptionError, VideoError
from rdlite.media import Keyframe
from rdlite.video import VideoReader
from rdlite.videoplan import VideoPlan, plan_video
from tests.media import Sound, clip, damage, noise, number

Seen = list[tuple[int, int | None, tuple[int, ...], int]]

OPEN_GOP = {"x264-params": "open-gop=1:scenecut=0:bframes=3"}
HEVC = {"x265-params": "log-level=none:open-gop=1:keyint=12:min-keyint=12:scenecut=0"}
MPEG2 = {"codec": "mpeg2video", "max_b_frames": 2}
VP9 = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}
AV1 = {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "keyint=12"}}
MS = Fraction(1, 1000)
KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"sounds": [Sound()]},
    "h264.mkv": {},
    "h264.ts": {"sounds": [Sound("mp2")]},
    "h264.flv": {},
    "h264.nut": {},
    "h264.avi": {},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "live.mkv": {"container_options": {"live": "1"}},
    "open.mp4": {"options": OPEN_GOP},
    "open.ts": {"options": OPEN_GOP},
    "mpeg2.ts": MPEG2,
    "mpeg2.mpg": MPEG2,
    "mpeg2.mxf": MPEG2,
    "mpeg4.avi": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "wmv.asf": {"codec": "wmv2"},
    "hevc.mp4": {"codec": "libx265", "options": HEVC},
    "hevc.ts": {"codec": "libx265", "options": HEVC},
    "hevc10.mkv": {"codec": "libx265", "options": HEVC, "pix_fmt": "yuv420p10le"},
    "vp9.webm": VP9,
    "av1.mp4": AV1,
    "interlaced.ts": {"options": {"x264-params": "tff=1"}},
    "turned.mp4": {"rotation": 90},
    "ntsc.mp4": {"rate": Fraction(30000, 1001)},
    "vfr.mkv": {"time_base": MS, "ticks": list(accumulate([7, 33, 34, 100] * 25))},
    "late.mkv": {"time_base": MS, "ticks": [1_000_000 + 40 * n for n in range(100)]},
    "gap.ts": {"rate": 25, "ticks": [n + 10_000 * (n > 50) for n in range(100)]},
    "early.ts": {
        "time_base": Fraction(1, 90_000),
        "ticks": [3600 * n - 72_000 for n in range(100)],
        "container_options": {"avoid_negative_ts": "disabled"},
    },
}


def make(folder: Path, name: str, **changes: Any) -> Path:
    """100 frames of a kind, with a keyframe at every 12th at least."""
    return clip(folder / name, **({"frames": 100, "gop_size": 12} | KINDS[name] | changes))


def read(path: Path, **options: Any) -> tuple[Seen, VideoReader]:
    """Time, size and content of every frame, and the reader for its counts."""
    with VideoReader(path, **options) as reader:
        frames = list(reader)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return [(f.ticks, f.pts, f.image.shape, zlib.crc32(f.image)) for f in frames], reader


def check(
    path: Path, part_frames: int, *, spoiled: Collection[int] = (), **span: Any
) -> tuple[VideoPlan, Seen]:
    """Assert that the parts are the whole, and return the plan and the frames.

    Of the frames numbered in `spoiled` the content may differ: a decoder makes up what a damaged
    packet does not tell from what it has decoded before.
    """
    plan = plan_video(path, part_frames=part_frames, **span)
    whole, reader = read(path, **span)
    parts = [read(path, part=part) for part in plan.parts]
    frames = [frame for frames, _ in parts for frame in frames]
    assert [frame[:3] for frame in frames] == [frame[:3] for frame in whole]
    pairs = enumerate(zip(frames, whole, strict=True))
    assert {n for n, (part, other) in pairs if part != other} <= set(spoiled)
    readers = [part for _, part in parts]
    assert sum(part.bad_packets for part in readers) == reader.bad_packets
    assert sum(part.missing_pts for part in readers) == reader.missing_pts
    assert [part.truncated for part in readers[:-1]] == [False] * (len(parts) - 1)
    assert readers[-1].truncated == reader.truncated
    assert plan.first_ticks == whole[0][0]
    assert plan.size == whole[0][2][1::-1]
    return plan, whole


def check_counts(plan: VideoPlan, frames: Seen) -> None:
    """Assert that the scan has counted the frames of every part."""
    counts = [len(read(plan.path, part=part)[0]) for part in plan.parts]
    assert [part.frames for part in plan.parts] == counts
    assert [part.frames_before for part in plan.parts] == [0, *accumulate(counts[:-1])]
    assert [part.index for part in plan.parts] == list(range(len(counts)))
    assert plan.frames == len(frames) == sum(counts)


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


def test_what_cannot_be_cut_is_one_part(tmp_path: Path) -> None:
    raw = clip(tmp_path / "raw.h264", 60, format="h264", gop_size=12)
    one_key = clip(tmp_path / "key.mp4", 60, gop_size=300, options={"x264-params": "scenecut=0"})
    # Its packets that claim to be keyframes renew a column of the picture each.
    refresh = clip(
        tmp_path / "refresh.ts",
        noise(60),
        options={"x264-params": "intra-refresh=1:keyint=12:scenecut=0:bframes=0"},
    )
    # ASF states when a frame is decoded and not when it is shown: frames behind a keyframe that
    # need the one before look as if they came after it.
    asf = clip(tmp_path / "mpeg2.asf", 60, codec="mpeg2video", max_b_frames=2, gop_size=12)
    twice = tmp_path / "twice.ts"  # time begins anew in the middle
    twice.write_bytes(clip(tmp_path / "once.ts", 200, gop_size=12).read_bytes() * 2)
    for path in (raw, one_key, refresh, asf, twice):
        plan, _ = check(path, 1)
        assert len(plan.parts) == 1


def remux(source: Path, output: Path, pts: Callable[[int, Any], int]) -> Path:
    """Copy a video with other time stamps, given the number of a packet and the packet."""
    with av.open(str(source)) as old, av.open(str(output), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for n, packet in enumerate(p for p in old.demux(video=0) if p.size):
            packet.pts = pts(n, packet)
            packet.stream = stream
            new.mux(packet)
    return output


def test_one_wild_time_stamp_costs_no_frame(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mkv", 200, codec="mpeg4", gop_size=10)
    keys = [n for n, packet in enumerate(packets_of(source)) if packet.is_keyframe]
    wild = keys[10]
    path = remux(source, tmp_path / "b.mkv", lambda n, p: p.pts + 10**7 * (n == wild))
    plan, frames = check(path, 1)
    assert frames[wild][0] > 10**7
    assert [part.frames_before for part in plan.parts] == keys[:10]


def test_time_stamps_against_the_order_cost_no_frame(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mkv", 100, codec="mpeg4", gop_size=10)
    packets = packets_of(source)
    swapped = {n: n + 1 for n, packet in enumerate(packets[:-1]) if packet.is_keyframe and n}
    swapped |= {after: n for n, after in swapped.items()}
    times = [packet.pts for packet in packets]
    path = remux(source, tmp_path / "b.mkv", lambda n, _: times[swapped.get(n, n)])
    plan = plan_video(path, part_frames=1)
    found = [frame for part in plan.parts for frame in read(path, part=part)[0]]
    assert len(plan.parts) > 5
    assert found == sorted(read(path)[0])


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


def packets_of(path: Path) -> list[Any]:
    """All packets of a video, which know their places in the file."""
    with av.open(str(path)) as source:
        return [packet for packet in source.demux(video=0) if packet.size]


def packet_of(path: Path, key: Keyframe | None) -> Any:
    """The packet that a part begins at."""
    assert key is not None
    return next(filter(key.matches, packets_of(path)))


@pytest.mark.parametrize("name", ["h264.mp4", "open.mp4", "h264.mkv", "mpeg4.avi"])
def test_no_part_begins_at_a_damaged_keyframe(tmp_path: Path, name: str) -> None:
    path = make(tmp_path, name, frames=noise(100))
    parts = plan_video(path, part_frames=1).parts
    packet = packet_of(path, parts[4].key)
    data = bytearray(path.read_bytes())
    middle = packet.pos + packet.size // 2
    data[middle : middle + packet.size // 4] = b"\xff" * (packet.size // 4)
    path.write_bytes(data)
    plan, _ = check(path, 1, spoiled=range(parts[4].frames_before - 3, parts[5].frames_before))
    assert [p.key for p in plan.parts] == [p.key for p in parts if p is not parts[4]]


@pytest.mark.parametrize("name", ["h264.mp4", "open.mp4", "h264.mkv", "hevc.mp4", "av1.mp4"])
def test_damage_inside_a_part_stays_there(tmp_path: Path, name: str) -> None:
    path = make(tmp_path, name, frames=noise(100))
    parts = plan_video(path, part_frames=20).parts
    begin, end = (packet_of(path, part.key).pos for part in parts[2:4])
    damage(path, (begin + end) / 2 / path.stat().st_size, (end - begin) // 8)
    plan, _ = check(path, 20, spoiled=range(parts[2].frames_before, parts[3].frames_before))
    assert [part.key for part in plan.parts[:3]] == [part.key for part in parts[:3]]
    for part in plan.parts[:2]:
        assert read(path, part=part)[1].bad_packets == 0


def test_damage_behind_a_keyframe_is_counted_once(tmp_path: Path) -> None:
    path = make(tmp_path, "open.mp4", frames=noise(100))
    parts = plan_video(path, part_frames=1).parts
    packets = packets_of(path)
    key = next(n for n, packet in enumerate(packets) if parts[4].key.matches(packet))
    leading = packets[key + 1]
    assert leading.pts < packets[key].pts
    data = bytearray(path.read_bytes())
    data[leading.pos : leading.pos + leading.size] = b"\xff" * leading.size
    path.write_bytes(data)
    plan, _ = check(path, 1, spoiled=range(parts[4].frames_before - 4, parts[5].frames_before))
    assert read(path)[1].bad_packets == 1


def test_packets_lost_from_a_counting_format_are_lost_once(tmp_path: Path) -> None:
    # AVI has an index by the number of the frame and no time stamps, so that reading on and
    # seeking give different times behind what is missing.
    path = make(tmp_path, "mjpeg.avi")
    lost = packets_of(path)[40]
    data = path.read_bytes()
    path.write_bytes(data[: lost.pos] + data[lost.pos + 8 + lost.size + lost.size % 2 :])
    plan, frames = check(path, 1)
    assert len(frames) == 99
    assert len(plan.parts) > 30


def test_no_part_begins_near_lost_packets(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.ts", noise(300), gop_size=12)
    parts = plan_video(path, part_frames=1).parts
    lost = packet_of(path, parts[12].key).pos // 188 * 188
    data = path.read_bytes()
    path.write_bytes(data[:lost] + data[lost + 20 * 188 :])
    near = range(parts[12].frames_before - 50, parts[12].frames_before + 50)
    plan, _ = check(path, 1, spoiled=near)
    assert not {part.frames_before for part in plan.parts} & set(near)
    assert len(plan.parts) > 10


@pytest.mark.parametrize(
    ("name", "parts"), [("h264.mkv", 4), ("h264.ts", 4), ("fast.mp4", 4), ("mpeg4.avi", 1)]
)
def test_only_the_last_part_of_a_cut_file_is_truncated(
    tmp_path: Path, name: str, parts: int
) -> None:
    kind = KINDS.get(name, {"container_options": {"movflags": "+faststart"}})
    path = clip(tmp_path / name, noise(300), **({"gop_size": 12} | kind))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    frames = len(read(path)[0])
    plan, _ = check(path, 20, spoiled=[frames - 1])  # the packet of the last one may be cut
    assert len(plan.parts) >= parts
    assert 180 < frames < 220


@pytest.mark.parametrize("missing", [{0}, {0, 1, 2}, {100, 103}])
def test_missing_time_stamps_keep_parts_away(tmp_path: Path, missing: set[int]) -> None:
    path = clip(tmp_path / "a.ts", 300, gop_size=12)
    data = bytearray(path.read_bytes())
    for n, found in enumerate(re.finditer(b"\0\0\1\xe0", data)):
        if n in missing:
            data[found.start() + 7] &= 0x3F  # what follows is no time stamp
    path.write_bytes(data)
    plan, frames = check(path, 1)
    assert (len(frames), read(path)[1].missing_pts) == (300, len(missing))
    assert all(part.frames_before - max(missing) not in range(-60, 60) for part in plan.parts[1:])
    assert len(plan.parts) > 10


def packets_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets an entry for every packet read."""
    counted: list[int] = []

    def read_packets(*args: Any) -> Any:
        for packet in original(*args):
            counted.append(1)
            yield packet

    original = media.read_packets
    monkeypatch.setattr(media, "read_packets", read_packets)
    monkeypatch.setattr(video, "read_packets", read_packets)
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
    monkeypatch.setattr(videoplan, "_MAX_UNINDEXED_PARTS", 4)
    assert 2 <= len(check(make(tmp_path, "live.mkv"), 1)[0].parts) <= 4
    for name in ("h264.mkv", "h264.mp4", "h264.ts"):
        assert len(plan_video(make(tmp_path, name), part_frames=1).parts) > 6


def test_planning_gives_up_soon_where_seeking_is_impossible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip(tmp_path / "a.avi", 1000, codec="mjpeg", pix_fmt="yuvj420p")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])  # the index is at the end
    counted = packets_read(monkeypatch)
    plan = plan_video(path, part_frames=10)
    assert (len(plan.parts), plan.frames) == (1, len(read(path)[0]))
    assert len(counted) < 5 * plan.frames


def test_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path, "h264.mp4")
    part = plan_video(path, part_frames=20).parts[1]
    clip(path, 90, gop_size=7)
    with pytest.raises(VideoError, match=r"h264\.mp4 has changed"):
        read(path, part=part)


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
