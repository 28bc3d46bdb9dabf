"""Videos that are whole but unusual: their times, pictures and sound, read and annotated."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rdlite import Detector
from rdlite.video.reader import VideoReader
from tests.command import cli, lines
from tests.faults.expected import CAR, PERSON, found_in, summary_of
from tests.media import Sound, annotated, clip, frame_numbers, frame_times, sound_packets

Printed = pytest.CaptureFixture[str]
SHARP = {"pix_fmt": "yuv444p", "options": {"crf": "1"}}


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> Detector:
    return Detector(tiny_model)


@pytest.mark.fault(18)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_times_of_a_variable_rate_are_kept(name: str, tmp_path: Path, detector: Detector) -> None:
    steps = np.random.default_rng(3).integers(1, 90, 59)
    ticks = [0, *np.cumsum(steps).tolist()]
    options = {"video_track_timescale": "1000"} if name == "a.mp4" else {}
    source = clip(
        tmp_path / name, 60, time_base=Fraction(1, 1000), ticks=ticks, container_options=options
    )
    times = [frame.time for frame, _ in detector.stream(source)]
    assert times == pytest.approx([tick / 1000 for tick in ticks], abs=1e-6)
    output, summary = annotated(source)
    assert frame_times(output) == [Fraction(tick, 1000) for tick in ticks]
    assert [line["time"] for line in lines(summary.results)[1:]] == times


@pytest.mark.fault(19)
@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001)])
def test_fractional_rates_do_not_drift_in_ten_minutes(rate: Fraction, tmp_path: Path) -> None:
    frames = int(600 * rate)
    gray = [np.full((16, 16, 3), 128, np.uint8)] * frames
    source = clip(tmp_path / "a.mp4", gray, size=(16, 16), rate=rate, codec="mpeg4", gop_size=500)
    with VideoReader(source, start=590.0) as reader:
        last = list(reader)[-1]
    assert last.time == pytest.approx(float((frames - 1) / rate), abs=1e-9)
    output, _ = annotated(source, start=590.0)
    times = frame_times(output)
    assert [time * rate for time in times] == list(range(len(times)))


@pytest.mark.fault(20)
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_video_is_annotated_upright(
    rotation: int, squares: np.ndarray, detector: Detector, tmp_path: Path
) -> None:
    stored = np.ascontiguousarray(np.rot90(squares, k=-rotation // 90))
    size = stored.shape[1::-1]
    source = clip(tmp_path / "a.mp4", [stored] * 3, size=size, rotation=rotation, **SHARP)
    for _, found in detector.stream(source):
        assert found.image_size == (96, 64)
        assert found_in(found) == {"person": PERSON, "car": CAR}
    detector.annotate_video(source, tmp_path / "out.mp4", progress=False)
    with av.open(str(tmp_path / "out.mp4")) as output:
        for frame in output.decode(video=0):
            assert (frame.width, frame.height, frame.rotation) == (96, 64, 0)


@pytest.mark.fault(21)
def test_odd_sizes_play_and_their_boxes_are_right(detector: Detector, tmp_path: Path) -> None:
    image = np.full((241, 321, 3), 90, np.uint8)
    image[60:121, 54:107] = (250, 20, 20)  # the cell of the network's grid in row 1, column 1
    source = clip(tmp_path / "a.mkv", [image] * 4, size=(321, 241), **SHARP)
    summary = detector.annotate_video(source, tmp_path / "out.mp4", progress=False)
    assert summary.detections == {"person": 4}
    for line in lines(summary.results)[1:]:
        assert (line["width"], line["height"]) == (321, 241)
        assert line["detections"][0]["xyxy"] == pytest.approx([53.5, 60.25, 107, 120.5], abs=0.1)
    with av.open(str(summary.output)) as output:
        assert [(f.width, f.height) for f in output.decode(video=0)] == [(322, 242)] * 4


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("codec", "pix_fmt", "options"),
    [
        ("libx265", "yuv420p10le", {"x265-params": "log-level=none", "crf": "4"}),
        ("libx264", "yuv444p", {"crf": "1"}),
        ("libx264", "yuv420p", {"x264-params": "tff=1", "crf": "1"}),
        ("ffv1", "bgra", {}),
    ],
)
def test_less_common_formats_give_the_same_boxes(
    codec: str,
    pix_fmt: str,
    options: dict[str, str],
    squares: np.ndarray,
    detector: Detector,
    tmp_path: Path,
) -> None:
    source = clip(tmp_path / "a.mkv", [squares] * 4, codec=codec, pix_fmt=pix_fmt, options=options)
    with av.open(str(source)) as opened:
        frame = next(opened.decode(video=0))
        assert (frame.format.name, frame.interlaced_frame) == (pix_fmt, "tff=1" in str(options))
    found = [found_in(detections) for _, detections in detector.stream(source)]
    assert found == [{"person": PERSON, "car": CAR}] * 4


@pytest.mark.fault(22)
def test_gray_video_is_annotated(tmp_path: Path) -> None:
    output, _ = annotated(clip(tmp_path / "a.mkv", 10, pix_fmt="gray"))
    assert frame_numbers(output) == list(range(10))


@pytest.mark.fault(23)
def test_video_without_sound_is_nothing_to_speak_of(
    tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    source, output = clip(tmp_path / "a.mp4", 5), tmp_path / "out.mp4"
    assert cli("annotate", source, "-o", output, "--model", tiny_model, "--json") == 0
    summary = summary_of(capsys)
    assert (summary["warnings"], summary["audio_copied"]) == ([], 0)


@pytest.mark.fault(23)
def test_two_tracks_are_kept_and_subtitles_counted(
    tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    sounds = [Sound(), Sound("ac3", 48000, "mono")]
    source = clip(tmp_path / "a.mp4", 50, sounds=sounds, subtitles=True)
    output = tmp_path / "out.mp4"
    assert cli("annotate", source, "-o", output, "--model", tiny_model, "--json") == 0
    summary = summary_of(capsys)
    assert (summary["audio_copied"], summary["streams_dropped"]) == (2, {"subtitle": 1})
    assert "1 subtitle" in " ".join(summary["warnings"])
    for track in range(2):
        assert sound_packets(output, track) == sound_packets(source, track)


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("a.mov", Sound("pcm_mulaw", 8000, "mono")),
        ("a.avi", Sound("wmav2", 44100)),
        ("a.avi", Sound("adpcm_ms", 22050)),
    ],
)
def test_sound_that_mp4_cannot_hold_becomes_aac(
    name: str, sound: Sound, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    source = clip(tmp_path / name, 50, codec="mpeg4", sounds=[sound])
    output = tmp_path / "out.mp4"
    assert cli("annotate", source, "-o", output, "--model", tiny_model) == 0
    assert f"{sound.codec}" in capsys.readouterr().out
    with av.open(str(output)) as result:
        track = result.streams.audio[0]
        assert (track.codec_context.name, track.rate) == ("aac", sound.rate)
        samples = sum(frame.samples for frame in result.decode(track))
    assert samples / sound.rate == pytest.approx(2.0, abs=0.1)


@pytest.mark.fault(25)
@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_sound_and_picture_end_where_they_ended(seconds: float, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mkv", 50, sounds=[Sound("flac", 48000, seconds=seconds)])
    output, summary = annotated(source)
    assert summary.warnings == []
    assert sound_packets(output) == sound_packets(source)
    assert frame_times(output) == frame_times(source)


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    ("name", "first"), [("a.mkv", 1_000_000), ("a.ts", 90_000_003), ("a.ts", -7200)]
)
def test_time_counts_from_the_first_frame_wherever_time_stamps_begin(
    name: str, first: int, detector: Detector, tmp_path: Path
) -> None:
    rate = 1000 if name == "a.mkv" else 90_000
    ticks = [first + n * rate // 25 for n in range(20)]
    source = clip(
        tmp_path / name, 20, time_base=Fraction(1, rate), ticks=ticks,
        container_options={"avoid_negative_ts": "disabled"},
    )  # fmt: skip
    times = [frame.time for frame, _ in detector.stream(source)]
    assert times == pytest.approx([n / 25 for n in range(20)], abs=1e-9)
    output, summary = annotated(source)
    assert frame_times(output) == [Fraction(n, 25) for n in range(20)]
    assert summary.frames == 20 and not summary.truncated
    if first > 0:
        assert [line["pts"] for line in lines(summary.results)[1:]] == ticks


def without_first_stamp(path: Path) -> Path:
    """A transport stream whose first picture says no time."""
    data = bytearray(clip(path, 20).read_bytes())
    start = data.index(b"\0\0\1\xe0")
    assert data[start + 7] & 0x80  # a time stamp follows
    data[start + 7] &= 0x3F
    length = data[start + 8]
    data[start + 9 : start + 9 + length] = b"\xff" * length
    path.write_bytes(data)
    return path


def raw_stream(path: Path) -> Path:
    """A file of H.264 alone, which holds no time stamp at all."""
    return clip(path.with_suffix(".h264"), 20, format="h264")


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    ("make", "missing"), [(without_first_stamp, 1), (raw_stream, 20)], ids=["first", "all"]
)
def test_missing_time_stamps_are_replaced_and_counted(
    make: Callable[[Path], Path], missing: int, tmp_path: Path
) -> None:
    source = make(tmp_path / "a.ts")
    output, summary = annotated(source)
    assert frame_numbers(output) == list(range(20))
    times = frame_times(output)
    assert times == sorted(set(times))
    assert float(times[-1] - times[-11]) == pytest.approx(0.4, abs=1e-3)
    assert f"{missing} frame" in " ".join(summary.warnings)


@pytest.mark.fault(28)
def test_a_change_of_resolution_gives_one_output_size(
    squares: np.ndarray, detector: Detector, tmp_path: Path
) -> None:
    large = np.kron(squares, np.ones((2, 2, 1), np.uint8))
    later = [90_000 + 3600 * n for n in range(5)]
    parts = [
        clip(tmp_path / "1.ts", [squares] * 5, **SHARP),
        clip(
            tmp_path / "2.ts", [large] * 5, size=(192, 128), time_base=Fraction(1, 90000),
            ticks=later, **SHARP,
        ),
    ]  # fmt: skip
    source = tmp_path / "both.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    summary = detector.annotate_video(source, tmp_path / "out.mp4", progress=False)
    assert (summary.frames, summary.rescaled_frames) == (10, 5)
    for n, line in enumerate(lines(summary.results)[1:]):
        scale = 1 if n < 5 else 2
        assert (line["width"], line["height"]) == (96 * scale, 64 * scale)
        person = next(one for one in line["detections"] if one["class_name"] == "person")
        assert person["xyxy"] == pytest.approx([side * scale for side in PERSON], abs=0.1)
    with av.open(str(summary.output)) as output:
        assert {(f.width, f.height) for f in output.decode(video=0)} == {(96, 64)}


@pytest.mark.slow
@pytest.mark.fault(29)
def test_ten_thousand_frames_keep_memory_and_files_flat(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 10_000, options={"preset": "ultrafast"})
    used: list[tuple[int, int]] = []

    def watch(done: int, total: int) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        used.append((pages * os.sysconf("SC_PAGE_SIZE") >> 20, len(os.listdir("/proc/self/fd"))))

    _, summary = annotated(source, progress=watch)
    assert summary.frames == 10_000
    memory, files = zip(*used[500:], strict=True)
    assert max(memory) - memory[0] < 30
    assert max(files) - min(files) <= 2  # the part that is being written
