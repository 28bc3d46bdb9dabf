"""Videos of many kinds, and whether their parts together are the whole."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av

from rdlite.video.media import Keyframe
from rdlite.video.plan import VideoPlan, plan_video
from rdlite.video.reader import VideoReader
from tests.media import Sound, clip

Seen = list[tuple[int, int | None, tuple[int, ...], int]]

OPEN_GOP = {"x264-params": "open-gop=1:scenecut=0:bframes=3:b-adapt=0"}
# Packets that claim to be keyframes and renew a column of the picture each.
REFRESH = "intra-refresh=1:keyint=12:scenecut=0:bframes=0"
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
    "gap.ts": {"options": {"bf": "0"}, "ticks": [n + 10_000 * (n > 50) for n in range(100)]},
    "early.ts": {
        "time_base": Fraction(1, 90_000),
        "ticks": [3600 * n - 72_000 for n in range(100)],
        "container_options": {"avoid_negative_ts": "disabled"},
    },
}


def packets_of(path: Path) -> list[Any]:
    """All packets of a video, which know their places in the file."""
    with av.open(str(path)) as source:
        return [packet for packet in source.demux(video=0) if packet.size]


def packet_of(path: Path, key: Keyframe | None) -> Any:
    """The packet that a part begins at."""
    assert key is not None
    return next(filter(key.matches, packets_of(path)))


def make(folder: Path, name: str, **changes: Any) -> Path:
    """100 frames of a kind, with a keyframe at every 12th at least."""
    return clip(folder / name, **({"frames": 100, "gop_size": 12} | KINDS[name] | changes))


def remux(source: Path, output: Path, pts: Callable[[int, Any], int]) -> Path:
    """Copy a video with other time stamps, given the number of a packet and the packet."""
    with av.open(str(source)) as old, av.open(str(output), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for n, packet in enumerate(p for p in old.demux(video=0) if p.size):
            packet.pts = pts(n, packet)
            packet.stream = stream
            new.mux(packet)
    return output


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
