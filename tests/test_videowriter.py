"""Parts of a video, encoded one by one and joined: the times, the pictures, the bytes."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rdlite.errors import OptionError, VideoError
from rdlite.video.audio import AudioCopier
from rdlite.video.join import join
from rdlite.video.reader import VideoReader
from rdlite.video.writer import PRESETS, Encoding, PartWriter, Piece, check_encoding
from tests.media import clip, frame_numbers, frame_times, picture

ENCODERS = ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "mpeg4")
BASE = Fraction(1, 90_000)


def encoding(codec: str = "libx264", **changes: Any) -> Encoding:
    values: dict[str, Any] = {
        "size": (96, 64),
        "time_base": BASE,
        "rate": Fraction(25),
        "sample_aspect_ratio": Fraction(1),
        "colors": (6, 2, 2),
        "codec": codec,
        "crf": 30,
        "preset": "veryfast",
        "threads": 1,
    }
    return Encoding(**(values | changes))


def write(
    path: Path, encoding: Encoding, ticks: Sequence[int], *, first: int = 0, duration: int = 3600
) -> Piece:
    """Write a part with one numbered picture at each tick."""
    writer = PartWriter(path, encoding)
    with writer:
        for number, tick in enumerate(ticks, start=first):
            image = picture(number % 256, encoding.size)
            writer.write(image, ticks=tick, duration=duration)
    return writer.piece


def joined(
    folder: Path,
    parts: Sequence[Sequence[int]],
    *,
    zero: int = 0,
    duration: int = 3600,
    codec: str = "libx264",
    base: Fraction = BASE,
) -> tuple[Path, int]:
    """Write parts with pictures at these ticks and join them; returns how many were moved too."""
    how = encoding(codec, time_base=base)
    pieces: dict[Path, Piece] = {}
    done = 0
    for ticks in parts:
        path = folder / f"part-{done}.mp4"
        pieces[path] = write(path, how, ticks, first=done, duration=duration)
        done += len(ticks)
    source = clip(folder / "source.mkv", 2)
    with VideoReader(source) as reader:
        reader.time_base = base
        audio = AudioCopier(reader, first=None, last=None, copy=False)
        moved = join(folder / "out.mp4", reader, pieces, audio, zero=zero, step=how.step)
    return folder / "out.mp4", moved


def packet_times(path: Path) -> list[tuple[Fraction, Fraction]]:
    """When each packet is decoded and shown, in the order of the file."""
    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        base = Fraction(stream.time_base)
        return [(p.dts * base, p.pts * base) for p in source.demux(stream) if p.size]


def ragged(count: int, seed: int, start: int = 0) -> list[int]:
    steps = np.random.default_rng(seed).integers(1, 9000, count - 1)
    return [start, *(start + np.cumsum(steps)).tolist()]


# One part.


@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize("frames", [1, 2, 40])
def test_a_part_begins_at_0_and_keeps_every_time(tmp_path: Path, codec: str, frames: int) -> None:
    ticks = ragged(frames, seed=1, start=123_457)
    piece = write(tmp_path / "a.mp4", encoding(codec), ticks)
    assert frame_times(tmp_path / "a.mp4") == [(tick - ticks[0]) * BASE for tick in ticks]
    assert (piece.frames, piece.first, piece.latest) == (frames, ticks[0], ticks[-1])
    assert frame_numbers(tmp_path / "a.mp4") == list(range(frames))


@pytest.mark.parametrize("codec", ENCODERS)
def test_a_part_depends_on_its_frames_alone(tmp_path: Path, codec: str) -> None:
    write(tmp_path / "a.mp4", encoding(codec), ragged(40, seed=1))
    write(tmp_path / "other.mp4", encoding(codec), ragged(70, seed=2), first=100)
    write(tmp_path / "b.mp4", encoding(codec), ragged(40, seed=1))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_frames_that_go_back_in_time_are_moved_by_the_least(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path / "a.mp4", encoding())
    with writer:
        for number, ticks in enumerate((0, 3600, 3600, 100, 7200)):
            writer.write(picture(number), ticks=ticks)
    assert writer.retimed == 2
    assert frame_times(tmp_path / "a.mp4") == [n * BASE for n in (0, 3600, 3601, 3602, 7200)]


def test_a_part_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), PartWriter(tmp_path / "a.mp4", encoding()) as writer:
        writer.write(picture(0), ticks=0)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rate", [Fraction(90_000), Fraction(1, 7), Fraction(54321, 1234)])
def test_an_encoder_takes_any_rate(tmp_path: Path, rate: Fraction) -> None:
    ticks = ragged(10, seed=3)
    write(tmp_path / "a.mp4", encoding("mpeg4", rate=rate), ticks)
    assert frame_times(tmp_path / "a.mp4") == [tick * BASE for tick in ticks]


def test_an_encoder_that_cannot_be_started_is_not_taken_for_a_file_that_cannot_be_written(
    tmp_path: Path,
) -> None:
    """As one of a graphics card that is not there; this one knows few rates."""
    text = r"encoder mpeg1video could not be started .* \(FFmpeg: invalid argument\); .*--codec"
    with pytest.raises(OptionError, match=text):
        PartWriter(tmp_path / "a.mp4", encoding("mpeg1video", rate=Fraction(7)))
    assert list(tmp_path.iterdir()) == []


def test_threads_and_preset_reach_the_encoder(tmp_path: Path) -> None:
    ticks = range(0, 36_000, 3600)
    for preset in ("ultrafast", "slow", None):
        write(tmp_path / f"{preset}.mp4", encoding(preset=preset, threads=2), ticks)
    # libx264 notes its settings in the stream
    settings = {p.stem: p.read_bytes() for p in tmp_path.iterdir()}
    assert b"cabac=0" in settings["ultrafast"]
    assert b"subme=8" in settings["slow"]
    assert b"subme=7" in settings["None"]
    assert all(b"threads=2 " in content for content in settings.values())


def test_options_that_an_encoder_does_not_have_are_named() -> None:
    assert encoding("libx265").warnings() == []
    assert ["preset" in text for text in encoding("libsvtav1").warnings()] == [True]
    assert ["crf" in text for text in encoding("mpeg4", preset=None).warnings()] == [True]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"crf": 52, "preset": None}, "crf must be .* from 0 to 51 with libx264, got 52"),
        ({"codec": "libx265", "crf": 60, "preset": None}, "from 0 to 51 with libx265, got 60"),
        ({"codec": "libsvtav1", "crf": 64, "preset": None}, "from 0 to 63 with libsvtav1, got 64"),
        ({"codec": ["libx264"], "crf": 23, "preset": None}, "codec=.* cannot be used"),
        ({"crf": 2.5, "preset": None}, "crf must be"),
        ({"crf": True, "preset": None}, "crf must be"),
        ({"crf": 23, "preset": "quick"}, f"preset must be None or one of {', '.join(PRESETS)}"),
        ({"crf": 23, "preset": 3}, "preset must be"),
        ({"codec": "nonsense", "crf": 23, "preset": None}, "no encoder of that name"),
        ({"codec": "libvpx", "crf": 23, "preset": None}, "cannot be used for the video"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        check_encoding(**({"codec": "libx264"} | options))


@pytest.mark.parametrize(
    ("codec", "crf"), [("libx264", 51), ("libx265", 51), ("libsvtav1", 63), ("libvpx-vp9", 63)]
)
def test_every_crf_that_is_let_through_can_be_used(tmp_path: Path, codec: str, crf: int) -> None:
    check_encoding(codec=codec, crf=crf, preset=None)
    with PartWriter(tmp_path / "a.mp4", encoding(codec, crf=crf, preset=None)) as writer:
        writer.write(picture(0), ticks=0)
    assert len(frame_times(tmp_path / "a.mp4")) == 1


@pytest.mark.parametrize("matrix", [1, 4, 5, 6, 7, 9])
def test_colours_are_converted_as_the_matrix_says(tmp_path: Path, matrix: int) -> None:
    # FFmpeg's own conversion back is the judge; a flat picture is kept by any crf.
    image = np.empty((64, 96, 3), np.uint8)
    image[:] = (200, 60, 120)
    with PartWriter(tmp_path / "a.mp4", encoding(colors=(matrix, 2, 2), crf=1)) as writer:
        writer.write(image, ticks=0)
    with VideoReader(tmp_path / "a.mp4") as reader:
        seen = next(iter(reader)).image
    assert np.abs(seen.astype(int) - image).max() <= 2


# Several parts.


@pytest.mark.parametrize("codec", ENCODERS)
def test_joined_parts_keep_every_frame_and_time(tmp_path: Path, codec: str) -> None:
    ticks = ragged(100, seed=4, start=1000)
    output, moved = joined(
        tmp_path, [ticks[:30], ticks[30:31], ticks[31:75], ticks[75:]], codec=codec
    )
    assert moved == 0
    assert frame_times(output) == [tick * BASE for tick in ticks]
    assert frame_numbers(output) == list(range(100))
    decoded = [dts for dts, _ in packet_times(output)]
    assert decoded == sorted(set(decoded))
    assert all(dts <= pts for dts, pts in packet_times(output))


@pytest.mark.parametrize("duration", [1, 3600, 200_000])
def test_a_joined_video_ends_where_its_last_frame_does(tmp_path: Path, duration: int) -> None:
    ticks = ragged(61, seed=5)
    output, _ = joined(tmp_path, [ticks[:30], ticks[30:]], duration=duration)
    with av.open(str(output)) as result:
        assert result.duration == pytest.approx(1e6 * float((ticks[-1] + duration) * BASE), abs=100)


def test_joined_parts_of_an_even_rate_have_that_rate(tmp_path: Path) -> None:
    base = Fraction(1001, 30_000)
    output, _ = joined(tmp_path, [range(40), range(40, 90), range(90, 97)], duration=1, base=base)
    with av.open(str(output)) as result:
        video = result.streams.video[0]
        assert video.average_rate == 1 / base
        assert video.duration * video.time_base == 97 * base
    assert frame_times(output) == [n * base for n in range(97)]


def test_time_0_may_be_any_tick(tmp_path: Path) -> None:
    ticks = range(90_000, 180_000, 3600)
    output, _ = joined(tmp_path, [ticks[:10], ticks[10:]], zero=90_000)
    assert frame_times(output) == [(tick - 90_000) * BASE for tick in ticks]


def test_a_part_that_begins_too_early_is_moved(tmp_path: Path) -> None:
    output, moved = joined(tmp_path, [[0, 10, 20], [20, 30], [40, 50]])
    assert moved == 2
    assert frame_times(output) == [tick * BASE for tick in (0, 10, 20, 21, 31, 40, 50)]


def test_parts_of_different_encoders_are_not_joined(tmp_path: Path) -> None:
    ticks = range(0, 36_000, 3600)
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    pieces = {
        path: write(path, encoding(preset=preset), ticks)
        for path, preset in zip(paths, ("veryfast", "slow"), strict=True)
    }
    with VideoReader(clip(tmp_path / "source.mkv", 2)) as reader:
        audio = AudioCopier(reader, first=None, last=None, copy=False)
        with pytest.raises(VideoError, match="another version of the encoder"):
            join(tmp_path / "out.mp4", reader, pieces, audio, zero=0, step=3600)
    assert not (tmp_path / "out.mp4").exists()
