"""An annotated video keeps the times, the sound and the pictures of its source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rdlite.detector import Detector
from rdlite.video.pipeline import annotate_video
from rdlite.video.reader import VideoReader
from tests.command import lines
from tests.media import (
    Sound,
    TwoBoxes,
    annotated,
    clip,
    frame_numbers,
    frame_times,
    number,
    picture,
    sound_packets,
)

Bgr = np.ndarray


def stored_color(path: Path) -> tuple[int, int, Bgr]:
    """YUV matrix and range tags of a video, and the first pixel as its tags say it looks."""
    with av.open(str(path)) as source:
        frame = next(source.decode(video=0))
        return frame.colorspace, frame.color_range, frame.to_ndarray(format="bgr24")[0, 0]


# Times.


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_annotate_keeps_the_time_stamps_of_a_variable_rate(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(3)
    ticks = [0, *np.cumsum(random.integers(1, 90, 79)).tolist()]
    source = clip(
        tmp_path / f"a{suffix}", 80, time_base=Fraction(1, 1000), ticks=ticks,
        container_options={"video_track_timescale": "1000"} if suffix == ".mp4" else {},
    )  # fmt: skip
    output, summary = annotated(source)
    assert frame_times(output) == [Fraction(tick, 1000) for tick in ticks]
    assert frame_numbers(output) == list(range(80))
    assert (summary.frames, summary.warnings) == (80, [])


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(12)])
def test_annotate_keeps_rate_and_duration(tmp_path: Path, rate: Fraction) -> None:
    source = clip(tmp_path / "a.avi", 60, codec="mpeg4", rate=rate)
    output, _ = annotated(source)
    assert frame_times(output) == [n / rate for n in range(60)]
    with av.open(str(output)) as result:
        video = result.streams.video[0]
        assert video.duration * video.time_base == 60 / rate
        assert video.average_rate == rate


def test_annotate_moves_a_late_start_to_zero(tmp_path: Path) -> None:
    ticks = [90_000_003 + 3003 * n for n in range(20)]
    source = clip(tmp_path / "a.ts", 20, time_base=Fraction(1, 90000), ticks=ticks)
    output, _ = annotated(source)
    assert frame_times(output) == [Fraction(3003 * n, 90000) for n in range(20)]
    assert [line["pts"] for line in lines(output.with_suffix(".jsonl"))[1:]] == ticks


def test_annotate_keeps_a_picture_that_begins_after_the_sound(tmp_path: Path) -> None:
    ticks = [457 + 40 * n for n in range(20)]
    source = clip(
        tmp_path / "a.mkv", 20, time_base=Fraction(1, 1000), ticks=ticks,
        sounds=[Sound("flac", 48000)],
    )  # fmt: skip
    output, _ = annotated(source)
    assert frame_times(output) == [Fraction(tick, 1000) for tick in ticks]
    assert sound_packets(output) == sound_packets(source)


def test_annotate_moves_frames_that_go_back_in_time(tmp_path: Path) -> None:
    parts = [clip(tmp_path / f"{n}.ts", 5) for n in range(2)]
    source = tmp_path / "both.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    output, summary = annotated(source)
    assert summary.frames == 10
    assert summary.retimed_frames == 5
    times = frame_times(output)
    assert times == sorted(set(times))
    assert "5 frames were moved" in " ".join(summary.warnings)


# Sound.


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("a.mp4", "libx264", Sound("aac", 44100)),
        ("a.mp4", "libx264", Sound("ac3", 48000)),
        ("a.mkv", "libx264", Sound("libopus", 48000)),
        ("a.mkv", "libx264", Sound("flac", 48000)),
        ("a.ts", "libx264", Sound("libmp3lame", 44100)),
        ("a.avi", "mpeg4", Sound("pcm_s16le", 8000, "mono")),
    ],
)
def test_annotate_keeps_audio_packets(tmp_path: Path, name: str, codec: str, sound: Sound) -> None:
    source = clip(tmp_path / name, 50, codec=codec, sounds=[sound])
    output, summary = annotated(source)
    with VideoReader(source) as reader:
        origin = reader.origin * reader.time_base
    before, after = sound_packets(source), sound_packets(output)
    assert [data for _, data in after] == [data for _, data in before]
    times = [float(time - origin) for time, _ in before]
    assert [float(time) for time, _ in after] == pytest.approx(times, abs=1 / sound.rate)
    assert (summary.audio_copied, summary.audio_encoded, summary.warnings) == (1, 0, [])


def test_annotate_keeps_aac_of_a_transport_stream(tmp_path: Path) -> None:
    # A transport stream frames every packet with a header that MP4 does without.
    source = clip(tmp_path / "a.ts", 50, sounds=[Sound("aac", 44100)])
    output, _ = annotated(source)
    before, after = sound_packets(source), sound_packets(output)
    assert [data for _, data in after] == [data[7:] for _, data in before]


def test_annotate_keeps_every_track_and_says_what_it_drops(tmp_path: Path) -> None:
    sounds = [Sound(language="fra"), Sound("ac3", 48000, "mono", language="deu")]
    source = clip(tmp_path / "a.mp4", 50, sounds=sounds, subtitles=True)
    output, summary = annotated(source)
    for track in range(2):
        assert sound_packets(output, track) == sound_packets(source, track)
    with av.open(str(output)) as result:
        assert [s.metadata["language"] for s in result.streams.audio] == ["fra", "deu"]
    assert summary.audio_copied == 2
    assert summary.streams_dropped == {"subtitle": 1}
    assert "1 subtitle" in " ".join(summary.warnings)


@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("a.mov", Sound("pcm_mulaw", 8000, "mono")),
        ("a.avi", Sound("wmav2", 44100)),
        ("a.avi", Sound("adpcm_ms", 22050)),
    ],
)
def test_annotate_encodes_sound_that_mp4_cannot_hold(
    tmp_path: Path, name: str, sound: Sound
) -> None:
    source = clip(tmp_path / name, 50, codec="mpeg4", sounds=[sound])
    output, summary = annotated(source)
    with av.open(str(output)) as result:
        track = result.streams.audio[0]
        assert (track.codec_context.name, track.rate) == ("aac", sound.rate)
        samples = sum(frame.samples for frame in result.decode(track))
    assert samples / sound.rate == pytest.approx(sound.seconds, abs=0.1)
    assert (summary.audio_copied, summary.audio_encoded) == (0, 1)
    assert sound.codec in " ".join(summary.warnings)


@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_annotate_ends_sound_and_picture_where_they_ended(tmp_path: Path, seconds: float) -> None:
    source = clip(tmp_path / "a.mp4", 50, sounds=[Sound(seconds=seconds)])
    output, _ = annotated(source)
    assert sound_packets(output) == sound_packets(source)
    assert frame_times(output) == frame_times(source)


def test_annotate_cuts_sound_with_the_picture(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 100, gop_size=25, sounds=[Sound(seconds=4.0)])
    output, _ = annotated(source, start=1.5, end=3.0)
    assert frame_numbers(output) == list(range(38, 75))
    first = Fraction(38, 25)
    assert frame_times(output) == [Fraction(n, 25) - first for n in range(38, 75)]
    packet = Fraction(1024, 44100)
    kept = [(t - first, d) for t, d in sound_packets(source) if first - packet < t < 3]
    cut = sound_packets(output)
    assert [data for _, data in cut] == [data for _, data in kept]
    assert [float(t) for t, _ in cut] == pytest.approx([float(t) for t, _ in kept], abs=1e-4)


def test_annotate_without_audio_leaves_sound_out(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 10, sounds=[Sound()])
    output, summary = annotated(source, audio=False)
    with av.open(str(output)) as result:
        assert len(result.streams.audio) == 0
    assert (summary.audio_copied, summary.warnings) == (0, [])


# Pictures.


def test_annotate_writes_h264_that_plays_everywhere(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 10)
    output, _ = annotated(source)
    with av.open(str(output)) as result:
        video = result.streams.video[0]
        assert (video.codec_context.name, video.pix_fmt) == ("h264", "yuv420p")
    data = output.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # can be played while it is loading


def test_annotate_pads_odd_sizes_and_leaves_boxes_alone(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mkv", 5, size=(97, 65), pix_fmt="yuv444p")
    output, _ = annotated(source)
    with av.open(str(output)) as result:
        video = result.streams.video[0]
        assert (video.width, video.height) == (98, 66)
    line = lines(output.with_suffix(".jsonl"))[1]
    assert (line["width"], line["height"]) == (97, 65)
    assert line["detections"][0]["xyxy"] == pytest.approx([9.7, 39, 38.8, 58.5], abs=1e-3)


def test_annotate_writes_rotated_video_upright(tmp_path: Path) -> None:
    stored = np.ascontiguousarray(np.rot90(picture(7, (64, 96)), k=-1))
    source = clip(
        tmp_path / "a.mp4", [stored] * 3, size=(96, 64), rotation=90,
        sample_aspect_ratio=Fraction(2, 1),
    )  # fmt: skip
    output, _ = annotated(source)
    with av.open(str(output)) as result:
        frame = next(result.decode(video=0))
        assert (frame.width, frame.height, frame.rotation) == (64, 96, 0)
        assert result.streams.video[0].sample_aspect_ratio == Fraction(1, 2)
        assert number(frame.to_ndarray(format="bgr24")) == 7


def test_annotate_scales_frames_of_another_size_to_the_first(tmp_path: Path) -> None:
    rate = Fraction(25)
    later = [90_000 + 3600 * n for n in range(5)]
    parts = [
        clip(tmp_path / "1.ts", 5, rate=rate),
        clip(tmp_path / "2.ts", 5, size=(128, 80), time_base=Fraction(1, 90000), ticks=later),
    ]
    source = tmp_path / "both.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    detector, output = TwoBoxes(), tmp_path / "out.mp4"
    summary = annotate_video(detector, source, output, stride=100)
    assert frame_numbers(output) == [0, 1, 2, 3, 4] * 2
    assert summary.rescaled_frames == 5
    assert detector.sizes == [(96, 64), (128, 80)]  # boxes of one size are not drawn on another
    assert [line["frame"] for line in lines(output.with_suffix(".jsonl"))[1:]] == [0]


@pytest.mark.parametrize(
    ("size", "context", "matrix"),
    [
        ((96, 64), {}, 6),
        ((1280, 720), {}, 1),
        ((96, 64), {"colorspace": 1, "color_range": 1}, 1),
        ((96, 64), {"colorspace": 5, "color_range": 2}, 5),
        ((1280, 720), {"colorspace": 9, "color_range": 1}, 9),
    ],
)
def test_annotate_does_not_shift_colours(
    tmp_path: Path, size: tuple[int, int], context: dict[str, int], matrix: int
) -> None:
    # The picture is stored as YUV with the given tags; what they mean must stay the same.
    source = tmp_path / "a.mkv"
    full = context.get("color_range") == 2
    with av.open(str(source), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"crf": "0"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        for name, value in context.items():
            setattr(video.codec_context, name, value)
        frame = av.VideoFrame(*size, "yuv420p")
        for plane, level in zip(frame.planes, (90, 110, 170), strict=True):
            plane.update(bytes([level]) * plane.buffer_size)
        frame.pts = 0
        output.mux(video.encode(frame))
        output.mux(video.encode(None))
    with VideoReader(source) as reader:
        seen = next(iter(reader)).image[0, 0].astype(int)
    result, _ = annotated(source, crf=1)
    tag, color_range, color = stored_color(result)
    assert (tag, color_range) == (matrix, 1)
    assert np.abs(color.astype(int) - seen).max() <= 2
    with av.open(str(result)) as written:
        level = next(written.decode(video=0)).to_ndarray()[0, 0]
    assert abs(int(level) - (round(16 + 90 * 219 / 255) if full else 90)) <= 2


def test_annotate_holds_boxes_between_detections(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 10)
    output, summary = annotated(source, stride=4)
    assert (summary.frames, summary.detected_frames) == (10, 3)
    assert summary.detections == {"person": 3, "bicycle": 3}
    assert [line["frame"] for line in lines(output.with_suffix(".jsonl"))[1:]] == [0, 4, 8]
    with av.open(str(output)) as result:
        frames = [frame.to_ndarray(format="bgr24") for frame in result.decode(video=0)]
    # Gray where nothing is drawn: the left edge of the bicycle's box is coloured on every frame.
    assert all(np.ptp(frame[50, 47:50].astype(int), axis=-1).max() > 40 for frame in frames)


def test_annotate_draws_what_the_detector_found(tmp_path: Path, tiny_model: Path) -> None:
    blue = np.full((64, 96, 3), 90, np.uint8)
    blue[16:32, 16:32] = (250, 20, 20)
    source = clip(tmp_path / "a.mp4", [blue] * 4, options={"crf": "1"}, pix_fmt="yuv444p")
    output = tmp_path / "out.mp4"
    summary = Detector(tiny_model).annotate_video(source, output, conf=0.5)
    assert summary.detections == {"person": 4}
    assert summary.frames == 4
    assert set(summary.speed) == {"decode", "detect", "draw", "encode"}


def test_annotate_keeps_the_title(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 3, title="Straße")
    output, _ = annotated(source)
    with av.open(str(output)) as result:
        assert result.metadata["title"] == "Straße"


def test_annotate_takes_a_title_that_is_not_utf8(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 3, title="XXXX")
    source.write_bytes(source.read_bytes().replace(b"XXXX", "Füße".encode("latin-1")))
    _, summary = annotated(source)
    assert summary.frames == 3
