"""Reading: every frame that can be had, upright, at its exact time, and honest about the rest."""

from __future__ import annotations

import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rdlite.errors import OptionError, VideoError
from rdlite.video.media import MAX_BAD_PACKETS
from rdlite.video.reader import VideoReader
from tests.media import Sound, clip, damage, frame_times, noise, number, picture


def numbers(path: Path, **options: object) -> list[int]:
    with VideoReader(path, **options) as reader:
        return [number(frame.image) for frame in reader]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_reader_returns_every_frame_in_order(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 40)
    with VideoReader(path) as reader:
        frames = list(reader)
    assert [number(frame.image) for frame in frames] == list(range(40))
    assert [frame.index for frame in frames] == list(range(40))
    assert frames[0].image.shape == (64, 96, 3)
    assert frames[0].image.dtype == np.uint8
    assert (reader.frames_read, reader.declared_frames) == (40, 40)
    assert reader.warnings() == []


def test_times_of_a_variable_frame_rate_are_the_time_stamps(tmp_path: Path) -> None:
    ticks = [0, 17, 57, 58, 200, 1000, 1033]
    path = clip(tmp_path / "vfr.mkv", 7, time_base=Fraction(1, 1000), ticks=ticks)
    with VideoReader(path) as reader:
        frames = list(reader)
    assert [frame.pts for frame in frames] == ticks
    assert [frame.time for frame in frames] == [tick / 1000 for tick in ticks]


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001)])
def test_times_do_not_drift_at_fractional_rates(tmp_path: Path, rate: Fraction) -> None:
    with VideoReader(clip(tmp_path / "ntsc.mp4", 60, rate=rate)) as reader:
        frames = list(reader)
    assert [frame.ticks * reader.time_base for frame in frames] == [n / rate for n in range(60)]
    assert reader.rate == rate


def test_time_counts_from_the_start_of_the_container(tmp_path: Path) -> None:
    ticks = [1_000_000 + 40 * n for n in range(10)]
    path = clip(tmp_path / "late.mkv", 10, time_base=Fraction(1, 1000), ticks=ticks)
    with VideoReader(path) as reader:
        frames = list(reader)
    assert [frame.pts for frame in frames] == ticks
    assert [frame.time for frame in frames] == [n * 0.04 for n in range(10)]
    assert not reader.truncated


def test_negative_time_stamps_are_read(tmp_path: Path) -> None:
    ticks = [-7200 + 3600 * n for n in range(10)]
    path = clip(
        tmp_path / "early.ts", 10, time_base=Fraction(1, 90000), ticks=ticks,
        container_options={"avoid_negative_ts": "disabled"},
    )  # fmt: skip
    with VideoReader(path) as reader:
        times = [frame.time for frame in reader]
    assert times == pytest.approx([n * 0.04 for n in range(10)], abs=1e-9)


def test_missing_time_stamps_follow_the_mean_rate_and_are_counted(tmp_path: Path) -> None:
    path = clip(tmp_path / "raw.h264", 20, format="h264")
    with VideoReader(path) as reader:
        frames = list(reader)
    assert [frame.pts for frame in frames] == [None] * 20
    assert [frame.time for frame in frames] == pytest.approx([n / 25 for n in range(20)])
    assert reader.missing_pts == 20
    assert "20 frames" in reader.warnings()[0]


def test_stride_returns_every_nth_frame(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 20)
    with VideoReader(path, stride=7) as reader:
        frames = list(reader)
    assert [frame.index for frame in frames] == [0, 7, 14]
    assert [number(frame.image) for frame in frames] == [0, 7, 14]
    assert reader.frames_read == 20


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_start_and_end_cut_at_the_exact_frame(tmp_path: Path, name: str) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = clip(tmp_path / name, 200, codec=codec, gop_size=50)
    assert numbers(path, start=5.0, end=5.2) == [125, 126, 127, 128, 129]
    assert numbers(path, start=5.01, end=5.2) == [126, 127, 128, 129]
    assert numbers(path, start=0.0, end=0.08) == [0, 1]
    assert numbers(path, start=7.9) == [198, 199]
    for late in (60.0, 1e17, 1e300):
        assert numbers(path, start=late) == []


def test_start_is_exact_where_the_file_has_no_index(tmp_path: Path) -> None:
    path = clip(tmp_path / "raw.h264", 100, format="h264")
    with VideoReader(path, start=3.0, end=3.1) as reader:
        assert [number(frame.image) for frame in reader] == [75, 76, 77]
    assert (reader.frames_read, reader.missing_pts) == (3, 3)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"stride": 0}, "stride"),
        ({"start": -1.0}, "start"),
        ({"start": float("nan")}, "start"),
        ({"start": 3.0, "end": 3.0}, "end"),
    ],
)
def test_impossible_ranges_are_refused(tmp_path: Path, options: dict, word: str) -> None:
    with pytest.raises(OptionError, match=word):
        VideoReader(clip(tmp_path / "a.mp4", 1), **options)


@pytest.mark.parametrize(("rotation", "shape"), [(90, (96, 64)), (180, (64, 96)), (270, (96, 64))])
def test_rotated_video_is_returned_upright(
    tmp_path: Path, rotation: int, shape: tuple[int, int]
) -> None:
    # A phone held sideways stores the picture turned and the angle that turns it back.
    upright = picture(5, shape[::-1])
    stored = np.ascontiguousarray(np.rot90(upright, k=-rotation // 90))
    path = clip(
        tmp_path / "phone.mp4", [stored] * 3, size=stored.shape[1::-1], rotation=rotation,
        sample_aspect_ratio=Fraction(4, 3),
    )  # fmt: skip
    with VideoReader(path) as reader:
        frames = list(reader)
    assert frames[0].image.shape == (*shape, 3)
    assert number(frames[0].image) == 5
    assert reader.sample_aspect_ratio == (Fraction(3, 4) if rotation % 180 else Fraction(4, 3))


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "options"),
    [
        ("libx265", "yuv420p10le", {"x265-params": "log-level=none"}),
        ("libx264", "yuv444p", {}),
        ("libx264", "gray", {}),
        ("libx264", "yuv420p", {"x264-params": "tff=1"}),
        ("ffv1", "bgra", {}),
    ],
)
def test_less_common_formats_are_decoded(
    tmp_path: Path, codec: str, pix_fmt: str, options: dict[str, str]
) -> None:
    path = clip(tmp_path / "a.mkv", 10, codec=codec, pix_fmt=pix_fmt, options=options)
    assert numbers(path) == list(range(10))


def test_full_range_colours_are_not_stretched(tmp_path: Path) -> None:
    gray = np.full((64, 96, 3), 8, np.uint8)
    path = clip(tmp_path / "full.mp4", [gray] * 3, color_range=2)
    with VideoReader(path) as reader:
        assert abs(int(next(iter(reader)).image.mean()) - 8) <= 2


def test_a_change_of_resolution_gives_frames_of_both_sizes(tmp_path: Path) -> None:
    parts = [clip(tmp_path / "1.ts", 5), clip(tmp_path / "2.ts", 5, size=(128, 80))]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with VideoReader(path) as reader:
        shapes = [frame.image.shape[:2] for frame in reader]
    assert shapes == [(64, 96)] * 5 + [(80, 128)] * 5


def test_damaged_packets_cost_only_their_own_frames(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", noise(100), gop_size=5)
    damage(path, 0.4, 6000)
    with VideoReader(path) as reader:
        frames = list(reader)
    assert reader.bad_packets > 0
    assert 80 <= len(frames) < 100
    assert number(frames[-1].image) == 99
    assert f"{reader.bad_packets} damaged packet" in reader.warnings()[0]


def test_too_many_damaged_packets_in_a_row_are_an_error(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", noise(100), gop_size=1, container_options={})
    with av.open(str(path)) as source:
        packets = [(p.pos, p.size) for p in source.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[20 : 21 + MAX_BAD_PACKETS]:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    with (
        VideoReader(path) as reader,
        pytest.raises(VideoError, match=r"a\.mp4.*33 packets.*\(--end\)"),
    ):
        list(reader)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_file_cut_short_gives_the_frames_before_the_cut(tmp_path: Path, name: str) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    options = {"movflags": "+faststart"} if name.endswith("mp4") else {}
    path = clip(tmp_path / name, noise(100), codec=codec, gop_size=10, container_options=options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with VideoReader(path) as reader:
        found = [number(frame.image) for frame in reader]
    assert 35 < len(found) < 65
    assert found[:35] == list(range(35))
    assert reader.truncated
    of = f" of {reader.declared_frames}" if reader.declared_frames else ""
    told = f"The file ends early: {len(found)}{of} frames were read."
    assert reader.warnings()[-1] == told
    with VideoReader(path, start=0.4) as late:
        rest = len(list(late))
    assert late.warnings()[-1] == f"The file ends early: {rest} frames were read."


@pytest.mark.parametrize(("source", "got"), [(0, "int; live cameras are"), (None, "NoneType$")])
def test_what_is_no_path_is_refused(source: object, got: str) -> None:
    with pytest.raises(VideoError, match=f"a video must be the path of a file, got {got}"):
        VideoReader(source)  # type: ignore[arg-type]


def test_stopping_at_end_is_not_called_truncated(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", 100)
    with VideoReader(path, end=1.0) as reader:
        assert len(list(reader)) == 25
    assert not reader.truncated


def test_further_streams_are_counted(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 5, sounds=[Sound(), Sound()], subtitles=True)
    with VideoReader(path) as reader:
        assert reader.other_streams == {"audio": 2, "subtitle": 1}


def test_files_that_hold_no_video_are_refused_by_name(tmp_path: Path) -> None:
    cut = clip(tmp_path / "cut.mp4", 50)
    cut.write_bytes(cut.read_bytes()[:400])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "broken.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.mp4")
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as output:
        track = output.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), "fltp")
        frame.sample_rate = 44100
        output.mux(track.encode(frame))
        output.mux(track.encode(None))
    names = ["cut", "empty", "text", "folder", "broken", "pipe", "sound", "missing"]
    before = open_files()
    for name in names:
        with pytest.raises(VideoError, match=rf"{name}\.mp4"):
            VideoReader(tmp_path / f"{name}.mp4")
    assert open_files() == before


def test_a_file_without_tracks_is_said_to_have_none(tmp_path: Path) -> None:
    path = tmp_path / "bare.mp4"
    movie = struct.pack(">I4s100x", 108, b"mvhd")
    path.write_bytes(struct.pack(">I4s8xI4s", 16, b"ftyp", 8 + len(movie), b"moov") + movie)
    with pytest.raises(VideoError, match=r"bare\.mp4 holds no video .*, nor any other track; make"):
        VideoReader(path)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "rtsp://camera/1", "file:///etc/passwd"],
)
def test_urls_and_protocols_are_refused(url: str) -> None:
    with pytest.raises(VideoError, match="not a file on this machine"):
        VideoReader(url)


@pytest.mark.parametrize("name", ["list.ffconcat", "list.m3u8", "list.sdp", "list.mp4"])
def test_playlists_do_not_open_other_files(tmp_path: Path, name: str) -> None:
    clip(tmp_path / "a.ts", 5)
    path = tmp_path / name
    path.write_text("ffconcat version 1.0\nfile a.ts\n")
    with pytest.raises(VideoError, match=r"list\."):
        VideoReader(path)


def test_a_file_named_like_a_protocol_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip(tmp_path / "a.mp4", 3).rename(tmp_path / "concat:ß 漢字.mp4")
    monkeypatch.chdir(tmp_path)
    assert numbers(Path("concat:ß 漢字.mp4")) == [0, 1, 2]


def test_pictures_over_the_pixel_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rdlite.video.reader.MAX_PIXELS", 96 * 64 - 1)
    with pytest.raises(VideoError, match="96x64"):
        VideoReader(clip(tmp_path / "a.mp4", 1))


def test_files_are_closed_after_reading_and_when_abandoned(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 10)
    before = open_files()
    list(VideoReader(path))
    frames = iter(VideoReader(path))
    next(frames)
    assert open_files() == before + 1
    frames.close()
    assert open_files() == before


def test_cover_art_is_not_taken_for_the_video(tmp_path: Path) -> None:
    path = tmp_path / "cover.mkv"
    with av.open(str(path), "w") as output:
        cover = output.add_stream("mjpeg", rate=1, width=32, height=32, pix_fmt="yuvj420p")
        cover.disposition = av.stream.Disposition.attached_pic
        video = output.add_stream("libx264", rate=25, width=96, height=64, pix_fmt="yuv420p")
        for stream, size in ((cover, (32, 32)), (video, (96, 64))):
            frame = av.VideoFrame.from_ndarray(picture(3, size), format="bgr24")
            frame.pts = 0
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    assert frame_times(path)
    assert numbers(path) == [3]
