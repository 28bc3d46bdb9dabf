"""Parts of damaged and odd files: no frame is lost at a cut, and none is given twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rdlite.errors import VideoError
from rdlite.video.plan import plan_video
from tests.media import clip, damage, noise
from tests.parts import (
    KINDS,
    REFRESH,
    check,
    make,
    packet_of,
    packets_of,
    read,
    remux,
)


def test_what_cannot_be_cut_is_one_part(tmp_path: Path) -> None:
    raw = clip(tmp_path / "raw.h264", 60, format="h264", gop_size=12)
    one_key = clip(tmp_path / "key.mp4", 60, gop_size=300, options={"x264-params": "scenecut=0"})
    refresh = clip(
        tmp_path / "refresh.ts",
        noise(60),
        options={"x264-params": REFRESH},
    )
    # ASF states when a frame is decoded and not when it is shown: frames behind a keyframe that
    # need the one before look as if they came after it.
    asf = clip(tmp_path / "mpeg2.asf", 60, codec="mpeg2video", max_b_frames=2, gop_size=12)
    twice = tmp_path / "twice.ts"  # time begins anew in the middle
    twice.write_bytes(clip(tmp_path / "once.ts", 200, gop_size=12).read_bytes() * 2)
    for path in (raw, one_key, refresh, asf, twice):
        plan, _ = check(path, 1)
        assert len(plan.parts) == 1


@pytest.mark.parametrize("wild", [10**7, -60_000])
def test_one_wild_time_stamp_keeps_parts_away(tmp_path: Path, wild: int) -> None:
    source = clip(tmp_path / "a.mp4", 300, gop_size=10, options={"bf": "0"})
    early = 1024 * 100  # so that no time stamp is negative
    path = remux(source, tmp_path / "b.mp4", lambda n, p: p.pts + early + wild * (n == 150))
    plan, frames = check(path, 1)
    assert len(frames) == 300
    assert [ticks for ticks, *_ in frames] == sorted(ticks for ticks, *_ in frames)
    starts = [part.frames_before for part in plan.parts]
    assert any(0 < n < 90 for n in starts) and any(n > 210 for n in starts)
    assert not any(90 < n < 210 for n in starts)


def test_time_stamps_against_the_order_cost_no_frame(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 100, gop_size=10, options={"bf": "0"})
    packets = packets_of(source)
    swapped = {n: n + 1 for n, packet in enumerate(packets[:-1]) if packet.is_keyframe and n}
    swapped |= {after: n for n, after in swapped.items()}
    times = [packet.pts + 1024 for packet in packets]
    path = remux(source, tmp_path / "b.mp4", lambda n, _: times[swapped.get(n, n)])
    plan = plan_video(path, part_frames=1)
    found = [frame for part in plan.parts for frame in read(path, part=part)[0]]
    assert len(plan.parts) > 5
    assert found == sorted(read(path)[0])


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
    key = packet_of(path, parts[4].key)
    leading = next(packet for packet in packets_of(path) if packet.dts > key.dts)
    assert leading.pts < key.pts
    data = bytearray(path.read_bytes())
    data[leading.pos : leading.pos + leading.size] = b"\xff" * leading.size
    path.write_bytes(data)
    check(path, 1, spoiled=range(parts[4].frames_before - 4, parts[5].frames_before))
    assert read(path)[1].bad_packets == 1


def test_packets_lost_from_a_counting_format_are_lost_once(tmp_path: Path) -> None:
    # AVI has an index by the number of the frame and no time stamps, so that reading on and
    # seeking give different times behind what is missing.
    path = make(tmp_path, "mjpeg.avi")
    lost = packets_of(path)[40]
    data = path.read_bytes()
    path.write_bytes(data[: lost.pos] + data[lost.pos + 8 + lost.size + lost.size % 2 :])
    plan, frames = check(path, 1, spoiled=[40])
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


def test_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path, "h264.mp4")
    part = plan_video(path, part_frames=20).parts[1]
    clip(path, 90, gop_size=7)
    with pytest.raises(VideoError, match=r"h264\.mp4 has changed"):
        read(path, part=part)
