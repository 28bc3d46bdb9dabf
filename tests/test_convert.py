"""JSON Lines to other formats: the same as written at once, and errors that say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlite.convert import convert
from rdlite.errors import OptionError
from rdlite.results import Detections
from rdlite.sinks import FORMATS, open_sink, to_line
from rdlite.storage.journal import Journal, dump_line
from tests.samples import detections, found, header

ALL = pytest.mark.parametrize("format", FORMATS)


def content(path: Path) -> Any:
    if path.is_file() and path.read_bytes()[:4] == b"PAR1":
        return pytest.importorskip("pyarrow.parquet").read_table(path)
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def both_ways(folder: Path, format: str, images: list[Detections], **options: Any) -> None:
    """Write images and frames at once, and through a journal, and compare."""
    if format == "parquet":
        pytest.importorskip("pyarrow")
    head = header(**options)
    names = [f"{number}{FORMATS[format].ending}" for number in range(2)]
    video = options.get("source")
    with (
        Journal(folder / "journal.jsonl", head) as journal,
        open_sink(format, folder / names[0], header=head) as sink,
    ):
        for number, one in enumerate(images):
            where: dict[str, Any] = {"image": f"in/{number}.jpg", "place": f"{number}.jpg"}
            if video is not None:
                where = {"frame": number, "pts": number * 512, "time": number / 30}
            journal.append({"seconds": 0.1} | to_line(one, **where))
            if video is not None:
                where |= {"image": str(video), "place": video.name}
            sink.write(one, **where)
    convert(folder / "journal.jsonl", format, folder / names[1])
    assert content(folder / names[0]) == content(folder / names[1])


@ALL
@settings(deadline=None, max_examples=20)
@given(images=st.lists(detections(), max_size=4))
def test_a_converted_file_is_as_if_written_at_once(
    format: str, images: list[Detections], tmp_path_factory: pytest.TempPathFactory
) -> None:
    both_ways(tmp_path_factory.mktemp("convert"), format, images)


@ALL
def test_frames_belong_to_the_video_that_the_header_names(format: str, tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    video.touch()
    both_ways(tmp_path, format, [found(), found(0), found(1)], source=video)
    labels = tmp_path / "0-yolo" / "clip.mp4" / "000002.txt"
    assert labels.exists() == (format == "yolo")


@ALL
def test_frames_of_several_videos_are_kept_apart(format: str, tmp_path: Path) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    where = [{"image": f"in/{n}.mp4", "place": f"{n}.mp4", "frame": 3} for n in range(2)]
    with Journal(tmp_path / "a.jsonl", header()) as journal:
        for one in where:
            journal.append(to_line(found(), **one))
    with open_sink(format, tmp_path / "at once", header=header()) as sink:
        for one in where:
            sink.write(found(), **one)
    convert(tmp_path / "a.jsonl", format, tmp_path / "later")
    assert content(tmp_path / "at once") == content(tmp_path / "later")


def test_what_was_renamed_is_said(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.jsonl", header()) as journal:
        for name in ("a.jpg", "a.png"):
            journal.append(to_line(found(), image=name))
    (sentence,) = convert(tmp_path / "a.jsonl", "voc", tmp_path / "labels")
    assert "a.png.xml" in sentence


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header line"),
        (dump_line({"schema": 2}), "schema 2"),
        (dump_line({"schema": 1, "options": {}}), "no names"),
        (dump_line(header()) + '{"image": "a.j', "line 2 of .* torn or damaged"),
        (dump_line(header()) + '{"image": "a.jpg"}\n', r"KeyError\('detections'\)"),
        (dump_line(header()) + "[1]\n", "line 2 of .* torn or damaged"),
    ],
)
def test_what_cannot_be_converted_is_named_and_leaves_nothing(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(OptionError, match=message):
        convert(tmp_path / "a.jsonl", "csv", tmp_path / "a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_an_existing_output_is_replaced_on_demand(tmp_path: Path) -> None:
    source, output = tmp_path / "a.jsonl", tmp_path / "a.json"
    source.write_text(dump_line(header()))
    output.write_text("mine")
    with pytest.raises(OptionError, match="exists already"):
        convert(source, "coco", output)
    assert convert(source, "coco", output, overwrite=True) == []
    assert json.loads(output.read_text())["images"] == []
