"""From a video to detections and to an annotated video that loses nothing."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdlite.detector import Detector
from rdlite.errors import OptionError, VideoError
from rdlite.video.pipeline import annotate_video, stream
from rdlite.video.reader import Frame, VideoReader
from tests.command import lines
from tests.conftest import constant_model
from tests.media import (
    Sound,
    TwoBoxes,
    annotated,
    clip,
    frame_times,
    sound_packets,
)

Bgr = np.ndarray


def failing(after: int, error: BaseException) -> Callable[..., Any]:
    """A detector that fails after some frames."""
    detector = TwoBoxes()

    def detect(image: Bgr, **options: Any) -> Any:
        if len(detector.sizes) == after:
            raise error
        return detector(image)

    for name in ("model_sha256", "options", "names", "category_ids"):
        setattr(detect, name, getattr(detector, name))
    return detect


class BreakingReader(VideoReader):
    """A reader that fails after some frames."""

    def __init__(self, path: Path, after: int) -> None:
        super().__init__(path)
        self._after = after

    def __iter__(self) -> Iterator[Frame]:
        yield from itertools.islice(super().__iter__(), self._after)
        raise VideoError("damaged here")


# Detections as a stream.


def test_stream_yields_each_frame_with_its_detections(tmp_path: Path, tiny_model: Path) -> None:
    blue = np.full((64, 96, 3), 90, np.uint8)
    blue[16:32, 16:32] = (250, 20, 20)
    path = clip(tmp_path / "a.mp4", [blue] * 6, options={"crf": "1"}, pix_fmt="yuv444p")
    found = list(stream(Detector(tiny_model), path, stride=2, conf=0.5))
    assert [frame.index for frame, _ in found] == [0, 2, 4]
    assert [detections.class_names for _, detections in found] == [["person"]] * 3
    assert found[0][1].image_size == (96, 64)
    assert found[0][1].xyxy[0] == pytest.approx([16, 16, 32, 32], abs=1)


def test_stream_cuts_by_time(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 50)
    found = list(stream(TwoBoxes(), path, start=1.0, end=1.12))
    assert [frame.time for frame, _ in found] == [1.0, 1.04, 1.08]


def test_stream_fails_at_once_on_a_bad_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4"):
        stream(TwoBoxes(), tmp_path / "none.mp4")


def test_stream_closes_the_file_when_abandoned_or_failing(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 10)
    before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    abandoned = stream(TwoBoxes(), path)
    next(abandoned)
    abandoned.close()
    with pytest.raises(RuntimeError, match="stop"):
        list(stream(failing(3, RuntimeError("stop")), path))
    for _ in stream(TwoBoxes(), path):
        break
    assert len(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads


def test_stream_decodes_ahead_but_only_a_little(tmp_path: Path) -> None:
    reader = VideoReader(clip(tmp_path / "a.mp4", 50))
    for frame, _ in stream(TwoBoxes(), reader):
        assert reader.frames_read <= frame.index + 4
    assert reader.frames_read == 50


def test_stream_raises_what_reading_raises_after_the_frames_before_it(tmp_path: Path) -> None:
    reader, seen = BreakingReader(clip(tmp_path / "a.mp4", 50), 20), []
    with pytest.raises(VideoError, match="damaged here"):
        for frame, _ in stream(TwoBoxes(), reader):
            seen.append(frame.index)
    assert seen == list(range(20))


def test_stream_takes_a_reader_and_logs_what_was_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = clip(tmp_path / "raw.h264", 10, format="h264")
    reader = VideoReader(path, stride=5)
    assert len(list(stream(TwoBoxes(), reader))) == 2
    assert reader.frames_read == 10
    assert f"{path}: 10 frames have no usable time stamp" in caplog.text
    with pytest.raises(OptionError, match="VideoReader"):
        stream(TwoBoxes(), reader, stride=2)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"source": 0}, VideoError, "a video must be .*, got int; live cameras are not read"),
        ({"output": None}, OptionError, "output must be a path, got NoneType"),
        ({"output": ""}, OptionError, "output must name a file, got ''"),
        ({"output": "a\0.mp4"}, OptionError, "output must name a file, got "),
        ({"jsonl": 1}, OptionError, "jsonl must be a path, got int"),
        ({"jsonl": ""}, OptionError, "jsonl must name a file, got ''"),
    ],
)
def test_what_is_no_path_is_refused(
    arguments: dict[str, Any], error: type[Exception], text: str, tmp_path: Path
) -> None:
    source = clip(tmp_path / "a.mp4", 3)
    paths: dict[str, Any] = {"source": source, "output": tmp_path / "out.mp4"}
    with pytest.raises(error, match=text):
        annotate_video(TwoBoxes(), **paths | arguments)
    assert os.listdir(tmp_path) == ["a.mp4"]


# The source is not whole.


def test_annotate_goes_past_damage_and_reports_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(100)]
    source = clip(tmp_path / "a.mp4", images, gop_size=5, sounds=[Sound(seconds=4.0)])
    sound = sound_packets(source)
    data = bytearray(source.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 6000] = random.bytes(6000)
    source.write_bytes(data)
    output, summary = annotated(source)
    assert summary.bad_packets > 0
    assert 80 <= summary.frames < 100
    assert "damaged" in summary.warnings[0]
    assert len(sound_packets(output)) == len(sound)


def test_annotate_writes_what_there_is_of_a_cut_file(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mkv", 100, sounds=[Sound(seconds=4.0)])
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    output, summary = annotated(source)
    assert summary.truncated
    assert 20 < summary.frames < 100
    assert len(frame_times(output)) == summary.frames


@pytest.mark.parametrize("options", [{"start": 30.0}, {}])
def test_annotate_refuses_a_source_without_frames(
    tmp_path: Path, options: dict[str, float]
) -> None:
    source = clip(tmp_path / "a.avi", 50 if options else 0, codec="mpeg4")
    with pytest.raises(VideoError, match=r"a\.avi"):
        annotated(source, **options)
    assert os.listdir(tmp_path) == ["a.avi"]


# The output is whole or not there.


def test_annotate_keeps_existing_files_unless_told_otherwise(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 3)
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(VideoError, match=r"out\.jsonl exists"):
        annotated(source)
    (tmp_path / "out.mp4").write_text("mine")
    with pytest.raises(VideoError, match=r"out\.mp4 exists"):
        annotated(source)
    assert (tmp_path / "out.mp4").read_text() == "mine"
    output, _ = annotated(source, overwrite=True)
    assert len(frame_times(output)) == 3


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_annotate_refuses_to_overwrite_its_source(tmp_path: Path, link: str | None) -> None:
    source = clip(tmp_path / "a.mp4", 3)
    output = source
    if link is not None:
        output = tmp_path / "b.mp4"
        getattr(output, link)(source)
    data = source.read_bytes()
    with pytest.raises(VideoError, match="source itself"):
        annotate_video(TwoBoxes(), source, output, overwrite=True)
    assert source.read_bytes() == data


@pytest.mark.parametrize(
    ("output", "options", "error"),
    [
        ("out.avi", {}, OptionError),
        ("nowhere/out.mp4", {}, VideoError),
        ("out.mp4", {"codec": "nosuchcodec"}, OptionError),
        ("out.mp4", {"codec": "aac"}, OptionError),
        ("out.mp4", {"jsonl": "nowhere/a.jsonl"}, VideoError),
        ("out.mp4", {"stride": 0}, OptionError),
    ],
)
def test_annotate_refuses_what_it_cannot_write(
    tmp_path: Path, output: str, options: dict[str, Any], error: type[Exception]
) -> None:
    source = clip(tmp_path / "a.mp4", 3)
    with pytest.raises(error):
        annotate_video(TwoBoxes(), source, tmp_path / output, **options)
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_annotate_leaves_nothing_after_an_error(tmp_path: Path, error: BaseException) -> None:
    source = clip(tmp_path / "a.mp4", 60, sounds=[Sound()])
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(type(error)):
        annotate_video(failing(45, error), source, tmp_path / "out.mp4")
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_annotate_leaves_nothing_when_the_disk_is_full(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(30)]
    source = clip(tmp_path / "a.mp4", images, size=(320, 240))
    script = textwrap.dedent(f"""
        import resource, signal, sys
        from pathlib import Path
        from rdlite.errors import VideoError
        from rdlite.video.pipeline import annotate_video
        from tests.media import TwoBoxes
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            annotate_video(TwoBoxes(), {str(source)!r}, {str(tmp_path / "out.mp4")!r}, crf=10)
        except VideoError as error:
            print(error)
    """)
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert "out.mp4 cannot be written" in done.stdout
    assert "file too large" in done.stdout
    assert os.listdir(tmp_path) == ["a.mp4"]


# The record.


def test_annotate_records_every_detection(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 3)
    output, summary = annotated(source, conf=0.3)
    header, *frames = lines(output.with_suffix(".jsonl"))
    assert header["schema"] == 1
    assert header["model_sha256"] == "0" * 64
    assert header["source_size"] == source.stat().st_size
    assert header["mtime_ns"] == source.stat().st_mtime_ns
    assert header["options"] == {"stride": 1, "start": None, "end": None, "conf": 0.3}
    assert summary.results == output.with_suffix(".jsonl")
    assert [(line["frame"], line["time"]) for line in frames] == [(0, 0.0), (1, 0.04), (2, 0.08)]
    assert frames[0]["detections"][0]["class_name"] == "person"


def test_annotate_writes_no_record_or_writes_it_elsewhere(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 3)
    _, summary = annotated(source, jsonl=False)
    assert summary.results is None
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "out.mp4"]
    annotated(source, jsonl=tmp_path / "b.jsonl", overwrite=True)
    assert len(lines(tmp_path / "b.jsonl")) == 4


def test_annotate_reports_progress_to_a_function(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 4)
    calls: list[tuple[int, int]] = []
    annotated(source, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_annotate_shows_no_bar_unless_on_a_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = clip(tmp_path / "a.mp4", 4)
    annotated(source)
    assert capfd.readouterr().err == ""
    annotated(source, progress=True, overwrite=True)
    assert "4/4" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["a.avi", "a.mkv"])
def test_annotate_copies_stereo_pcm_whose_channels_have_no_names(tmp_path: Path, name: str) -> None:
    source = clip(tmp_path / name, 10, sounds=[Sound(codec="pcm_s16le", layout="stereo")])
    output, summary = annotated(source)
    assert summary.audio_copied == 1
    before, after = sound_packets(source), sound_packets(output)
    assert b"".join(data for _, data in after) == b"".join(data for _, data in before)


def test_annotate_counts_anchors_that_gave_nan(
    write_model: Callable[..., Path], squares: Bgr, tmp_path: Path
) -> None:
    heads = {"arm_conf": np.zeros((1, 24, 2)), "odm_conf": np.zeros((1, 24, 6))}
    heads |= {"arm_loc": np.zeros((1, 24, 4)), "odm_loc": np.full((1, 24, 4), np.nan)}
    detector = Detector(write_model(constant_model(**heads)))
    assert detector(squares).dropped_nonfinite
    source = clip(tmp_path / "a.mp4", 3)
    summary = annotate_video(detector, source, tmp_path / "b.mp4", progress=False)
    assert summary.dropped_nonfinite and "NaN" in " ".join(summary.warnings)


def test_annotate_says_that_an_encoder_has_no_crf(tmp_path: Path) -> None:
    _, summary = annotated(clip(tmp_path / "a.mp4", 3), codec="mpeg4")
    assert "crf was not used" in " ".join(summary.warnings)


@pytest.mark.parametrize("crf", [99, -1, 2.5])
def test_annotate_refuses_an_impossible_crf(tmp_path: Path, crf: Any) -> None:
    with pytest.raises(OptionError, match="crf must be"):
        annotated(clip(tmp_path / "a.mp4", 3), crf=crf)
