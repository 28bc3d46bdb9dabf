"""Videos that are damaged, cut or no videos, read as a stream and annotated."""

from __future__ import annotations

import os
import socket
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rdlite import Detector, VideoError
from rdlite.video.reader import VideoReader
from tests.command import cli, lines
from tests.faults.expected import summary_of
from tests.faults.fuzz import fuzz
from tests.media import (
    Sound,
    annotated,
    clip,
    frame_numbers,
    frame_times,
    picture,
    sound_packets,
)

Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> Detector:
    return Detector(tiny_model)


def noisy(count: int) -> list[np.ndarray]:
    """Numbered pictures whose lower half does not compress, so that packets have some size."""
    random = np.random.default_rng(1)
    images = [picture(n) for n in range(count)]
    for image in images:
        image[32:] = random.integers(0, 256, (32, 96, 3), np.uint8)
    return images


def cut(path: Path, share: float) -> Path:
    """Keep the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def sound_file(path: Path) -> Path:
    """An MP4 with sound and no picture."""
    with av.open(str(path), "w") as output:
        track = output.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), "fltp")
        frame.sample_rate = 44100
        output.mux(track.encode(frame))
        output.mux(track.encode(None))
    return path


@pytest.mark.fault(14, 15, 27)
def test_what_holds_no_frame_fails_by_name_and_stops_nothing(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    sound_file(folder / "sound.mp4")
    cut(clip(folder / "noindex.mp4", 50), 0.9)
    clip(folder / "noframe.avi", 0, codec="mpeg4")
    clip(folder / "good.mp4", [squares] * 3)
    assert cli("annotate", folder, "-o", out, "--model", tiny_model) == 3
    failed = {Path(line["input"]).stem: line["error"] for line in lines(out / "errors.jsonl")}
    assert failed.keys() == {"empty", "text", "sound", "noindex", "noframe"}
    assert "is empty" in failed["empty"]
    assert "cannot be opened as a video" in failed["text"]
    assert "holds no video that can be decoded, only audio" in failed["sound"]
    assert "was cut before its index was written" in failed["noindex"]
    assert "has no frame" in failed["noframe"]
    assert len(frame_times(out / "good.mp4")) == 3
    assert not list(out.glob("no*"))


@pytest.mark.fault(14, 15)
def test_a_stream_of_no_video_is_refused_at_once(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    sound_file(tmp_path / "sound.mp4")
    cut(clip(tmp_path / "noindex.mp4", 50), 0.9)
    for name in ("empty", "sound", "noindex", "missing"):
        with pytest.raises(VideoError, match=rf"{name}\.mp4"):
            detector.stream(tmp_path / f"{name}.mp4")


@pytest.mark.fault(27)
def test_a_video_without_a_frame_gives_an_empty_stream(
    detector: Detector, tiny_model: Path, tmp_path: Path
) -> None:
    source = clip(tmp_path / "none.avi", 0, codec="mpeg4")
    assert list(detector.stream(source)) == []
    # No annotated video without a frame can be written: alone it is "nothing done", exit code 1.
    assert cli("annotate", source, "-o", tmp_path / "out", "--model", tiny_model) == 1


@pytest.mark.fault(16)
def test_a_video_cut_in_the_middle_is_kept_up_to_there(
    tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    source = clip(
        tmp_path / "a.mp4", noisy(100), gop_size=10, container_options={"movflags": "+faststart"}
    )
    cut(source, 0.5)
    output = tmp_path / "out.mp4"
    assert cli("annotate", source, "-o", output, "--model", tiny_model, "--json") == 3
    summary = summary_of(capsys)
    assert summary["truncated"]
    assert "ends early" in " ".join(summary["warnings"])
    assert 35 < summary["frames"] < 65
    assert frame_numbers(output) == list(range(summary["frames"]))


@pytest.mark.fault(16)
def test_an_avi_cut_in_the_middle_is_called_truncated(tmp_path: Path) -> None:
    sound = Sound("adpcm_ms", 22050, seconds=4.0)
    source = cut(clip(tmp_path / "a.avi", noisy(100), codec="mpeg4", sounds=[sound]), 0.5)
    _, summary = annotated(source)
    assert summary.truncated and 35 < summary.frames < 65


@pytest.mark.fault(17)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_flipped_bytes_cost_only_the_frames_that_they_hit(name: str, tmp_path: Path) -> None:
    source = clip(tmp_path / name, noisy(100), gop_size=5)
    with av.open(str(source)) as opened:
        places = [(p.pos, p.pos + p.size) for p in opened.demux(video=0) if p.size]
    data = bytearray(source.read_bytes())
    begin = len(data) * 2 // 5
    data[begin : begin + 6000] = np.random.default_rng(0).bytes(6000)
    source.write_bytes(data)
    # Frames depend on others of their group only, and each group is five packets.
    hit = {
        n // 5 for n, (left, right) in enumerate(places) if left < begin + 6000 and right > begin
    }
    whole = {n for n in range(100) if n // 5 not in hit}
    output, summary = annotated(source)
    if name != "a.mkv":  # in Matroska FFmpeg passes over what it cannot read without a word
        assert summary.bad_packets > 0
        assert f"{summary.bad_packets} damaged packet" in " ".join(summary.warnings)
    assert 0 < len(hit) < 15
    assert len(whole & set(frame_numbers(output))) >= 0.9 * len(whole)


@pytest.mark.fault(17)
@pytest.mark.parametrize("name", ["mp4", "mkv", "ts", "avi", "mpg"])
def test_damaged_bytes_give_frames_or_a_video_error(name: str, tmp_path: Path) -> None:
    codec = {"avi": "mpeg4", "mpg": "mpeg2video"}.get(name, "libx264")
    sound = Sound("mp2" if name == "mpg" else "aac", seconds=0.5)
    source = clip(tmp_path / f"whole.{name}", noisy(12), codec=codec, gop_size=4, sounds=[sound])
    read, refused = fuzz(
        "read_video", source, "(*damaged_heads(data, 1), *damaged_anywhere(data, 120))"
    )
    assert read > 20 and read + refused == 520


@pytest.mark.fault(17)
@pytest.mark.parametrize("name", ["mp4", "ts"])
def test_a_damaged_video_is_annotated_as_far_as_it_can_be_read(name: str, tmp_path: Path) -> None:
    source = clip(tmp_path / f"whole.{name}", noisy(12), gop_size=4, sounds=[Sound(seconds=0.5)])
    read, refused = fuzz("annotate", source, "damaged_anywhere(data, 40)")
    assert read > 10 and read + refused == 40
    assert os.listdir(tmp_path) == [source.name]


@pytest.mark.fault(17)
def test_damaged_sound_costs_its_own_packets(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.ts", 50, sounds=[Sound()])
    whole = len(sound_packets(source))
    data, header = source.read_bytes(), b"\xff\xf1"  # of a packet of AAC
    damaged = data.replace(header, b"\0\0", 40)
    source.write_bytes(data[:3000] + damaged[3000:])
    output, summary = annotated(source)
    assert frame_numbers(output) == list(range(50))
    assert 0 < summary.audio_bad_packets
    assert 0 < len(sound_packets(output)) < whole


@pytest.mark.fault(17)
def test_a_time_stamp_with_a_changed_bit_moves_no_other_frame(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.ts", 50)
    data, place = bytearray(source.read_bytes()), -1
    for _ in range(25):
        place = data.index(b"\0\0\1\xe0", place + 1)
    data[place + 9] ^= 0x08  # the highest bit of the time: 13 hours
    source.write_bytes(data)
    output, summary = annotated(source)
    assert frame_times(output) == [Fraction(n, 25) for n in range(50)]
    assert "1 frame has" in " ".join(summary.warnings)


@pytest.mark.fault(17)
def test_a_stream_that_begins_in_the_middle_of_a_file_is_passed_over(tmp_path: Path) -> None:
    parts = [clip(tmp_path / "1.ts", 5), clip(tmp_path / "2.ts", 5, sounds=[Sound()] * 3)]
    source = tmp_path / "both.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    with VideoReader(source) as reader:
        assert sum(1 for _ in reader) == 10


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXTINF:1,\na.ts\n"),
        ("list.mp4", "#EXTM3U\n#EXTINF:1,\na.ts\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile a.ts\n"),
        ("list.mkv", "ffconcat version 1.0\nfile a.ts\n"),
        ("list.sdp", "v=0\nm=video 5004 RTP/AVP 96\n"),
    ],
)
def test_playlists_do_not_open_other_files(
    name: str, text: str, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    clip(tmp_path / "a.ts", 5)
    (tmp_path / name).write_text(text)
    with pytest.raises(VideoError, match=name):
        VideoReader(tmp_path / name)
    out = tmp_path / "out"
    assert cli("annotate", tmp_path / name, "-o", out, "--model", tiny_model) == 1
    assert name in capsys.readouterr().err


@pytest.mark.fault(30, 31)
def test_urls_and_protocols_are_refused_without_a_connection(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip(Path("a.ts"), 5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        http = f"http://127.0.0.1:{port}/a.mp4"
        Path("list.mkv").write_text(f"#EXTM3U\n#EXTINF:1,\n{http}\n")
        for source in (
            http,
            f"tcp://127.0.0.1:{port}",
            "concat:a.ts|a.ts",
            "file:a.ts",
            "list.mkv",
        ):
            with pytest.raises(VideoError, match=r"not a file on this machine|list\.mkv"):
                detector.stream(source)
            with pytest.raises(VideoError):
                detector.annotate_video(source, "out.mp4")
        with pytest.raises(BlockingIOError):
            server.accept()
    assert sorted(os.listdir()) == ["a.ts", "list.mkv"]


@pytest.mark.fault(31)
def test_a_url_on_the_command_line_is_refused(
    tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    # There is no option that allows URLs, so no connection that could hang.
    out = tmp_path / "out"
    assert cli("annotate", "http://127.0.0.1:9/a.mp4", "-o", out, "--model", tiny_model) == 1
    assert "http://127.0.0.1:9/a.mp4" in capsys.readouterr().err
    assert not out.exists()
