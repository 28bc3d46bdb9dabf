"""JSON Lines to other formats: the same as written at once, and errors that say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlite.convert import Converted, convert
from rdlite.errors import OptionError, ResultFileError
from rdlite.results import Detections
from rdlite.sinks import FORMATS, open_sink, to_line
from rdlite.storage.journal import Journal, dump_line
from tests.samples import NAMES, SIZE, detections, found, header

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
    done = convert(tmp_path / "a.jsonl", "voc", tmp_path / "labels")
    assert (done.records, done.objects, done.faults) == (2, 4, [])
    (sentence,) = done.notes
    assert "a.png.xml" in sentence


@ALL
def test_what_is_damaged_costs_nothing_else(format: str, tmp_path: Path) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    line = dump_line(to_line(found(), image="a.jpg"))
    (tmp_path / "whole.jsonl").write_text(dump_line(header()) + line)
    (tmp_path / "cut.jsonl").write_text(dump_line(header()) + line + line[:50])
    whole, cut = (
        convert(tmp_path / f"{name}.jsonl", format, tmp_path / name) for name in ("whole", "cut")
    )
    assert content(tmp_path / "whole") == content(tmp_path / "cut")
    assert (whole.records, whole.faults, cut.records) == (1, [], 1)
    assert cut.faults == [
        f"{tmp_path}/cut.jsonl: 1 damaged line was left out; the first is line 3: it is cut off"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header line"),
        (dump_line({"schema": 2}), "schema 2"),
        (dump_line({"schema": 1, "options": {}}), "no names"),
        (dump_line(header()) + '{"image": "a.j', "no line of .* is whole: .*line 2: it is cut off"),
        (dump_line(header()) + dump_line(header()), "line 2 of .* is a second header"),
    ],
)
def test_what_cannot_be_converted_is_named_and_leaves_nothing(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ResultFileError, match=message):
        convert(tmp_path / "a.jsonl", "csv", tmp_path / "a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_an_existing_output_is_replaced_on_demand(tmp_path: Path) -> None:
    source, output = tmp_path / "a.jsonl", tmp_path / "a.json"
    source.write_text(dump_line(header()))
    output.write_text("mine")
    with pytest.raises(OptionError, match="exists already"):
        convert(source, "coco", output)
    assert convert(source, "coco", output, overwrite=True) == Converted()
    assert json.loads(output.read_text())["images"] == []


def test_a_source_is_never_replaced(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(dump_line(header()) + '{"image": "a.j')
    before = source.read_bytes()
    with pytest.raises(OptionError, match="is what is to be read"):
        convert(source, "jsonl", source, overwrite=True)
    assert source.read_bytes() == before


def video_results(folder: Path, step: int = 1, video: bytes = b"", **options: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "clip.mp4").write_bytes(video)
    head = header(source=folder / "clip.mp4", **options)
    with open_sink("jsonl", folder / "clip.jsonl", header=head) as sink:
        for number in range(0, 2 * step, step):
            sink.write(found(), frame=number, pts=number, time=number / 25)
    return folder / "clip.jsonl"


def changed(path: Path, name: str, **keys: Any) -> Path:
    """A copy of a file of results, beside it, with another header."""
    head, rest = path.read_text().split("\n", 1)
    path.with_name(name).write_text(dump_line(json.loads(head) | keys) + rest)
    return path.with_name(name)


def test_bytes_are_one_source_that_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(ResultFileError, match=r"give the path of a file of results, got b'a'"):
        convert(b"a", "csv", tmp_path / "a.csv")  # type: ignore[arg-type]


def test_images_are_named_as_they_lie_in_a_folder(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for name in ("a.jpg", "more/b.jpg", "c.jpg"):
        (photos / name).touch()
    places: list[dict[str, Any]] = [
        {"image": "elsewhere/a.jpg", "place": "a.jpg"},
        {"image": str(photos / "more" / "b.jpg")},
        {"image": "c.jpg"},
        {"image": "d.jpg"},
        {"image": "/other/e.jpg"},
    ]
    with Journal(tmp_path / "a.jsonl", header()) as journal:
        for where in places:
            journal.append(to_line(found(), **where))
    done = convert(tmp_path / "a.jsonl", "coco", tmp_path / "a.json", images=photos)
    coco = json.loads((tmp_path / "a.json").read_text())
    names = [image["file_name"] for image in coco["images"]]
    assert names == ["a.jpg", "more/b.jpg", "c.jpg", "d.jpg", "e.jpg"]
    assert done.faults == [f"2 images are not in {photos}; the first is d.jpg"]
    with pytest.raises(OptionError, match="is no folder"):
        convert(tmp_path / "a.jsonl", "coco", tmp_path / "b.json", images=tmp_path / "gone")


def test_images_are_found_in_a_folder_that_was_moved_and_a_file_is_that_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    moved = tmp_path / "dup2"
    for name in ("a/x.jpg", "b/x.jpg", "Straße & Söhne/y.jpg", "more/z.jpg", "back\\slash.jpg"):
        (moved / name).parent.mkdir(parents=True, exist_ok=True)
        (moved / name).touch()
    images = {
        "dup/a/x.jpg": "x.jpg",
        "dup/b/x.jpg": "x-2.jpg",
        "odd\\Straße & Söhne\\y.jpg": None,
        "../dup2/more/z.jpg": "z.jpg",
        "other/z.jpg": "z-2.jpg",  # is not there
        "other/more/z.jpg": "z-3.jpg",  # the file there is the one of an image before
        "dup/back\\slash.jpg": None,
    }
    with Journal(tmp_path / "a.jsonl", header()) as journal:
        for image, place in images.items():
            journal.append(to_line(found(), image=image, place=place))
    done = convert(tmp_path / "a.jsonl", "coco", tmp_path / "a.json", images=moved)
    coco = json.loads((tmp_path / "a.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == [
        "a/x.jpg",
        "b/x.jpg",
        "Straße & Söhne/y.jpg",
        "more/z.jpg",
        "z-2.jpg",
        "z-3.jpg",
        "back\\slash.jpg",
    ]
    assert done.faults == [f"2 images are not in {moved}; the first is z-2.jpg"]


def test_frames_are_named_as_pictures_of_them(tmp_path: Path) -> None:
    source = video_results(tmp_path / "in")
    pictures = tmp_path / "frames" / "clip.mp4"
    pictures.mkdir(parents=True)
    for name in ("000000.jpg", "000001.png"):
        (pictures / name).touch()
    done = convert(source, "coco", tmp_path / "a.json", images=tmp_path / "frames")
    coco = json.loads((tmp_path / "a.json").read_text())
    names = [image["file_name"] for image in coco["images"]]
    assert (names, done.faults) == (["clip.mp4/000000.jpg", "clip.mp4/000001.png"], [])


def pictures(folder: Path, count: int) -> Path:
    (folder / "clip.mp4").mkdir(parents=True)
    for number in range(count):
        (folder / "clip.mp4" / f"{number:06d}.jpg").touch()
    return folder


@pytest.mark.parametrize("format", ["jsonl", "csv", "coco", "yolo", "voc", "labelstudio"])
def test_that_frames_are_counted_from_a_start_is_said_where_they_become_pictures(
    format: str, tmp_path: Path
) -> None:
    late = video_results(tmp_path / "late", options={"stride": 1, "start": 2.5})
    told = [
        f"frames of {late} are counted from start=2.5 (--start 2.5); make the images of frames "
        "from there on as well (ffmpeg -ss 2.5)"
    ]
    plain = [] if format in ("jsonl", "csv") else told
    frames = pictures(tmp_path / "frames", 2)
    assert convert(late, format, tmp_path / "a").notes == plain
    assert convert(late, format, tmp_path / "b", images=frames).notes == told
    whole = video_results(tmp_path / "whole", options={"stride": 1, "start": None})
    zero = changed(whole, "zero.jsonl", options={"stride": 1, "start": 0.0})
    for number, file in enumerate((whole, zero)):
        assert convert(file, format, tmp_path / f"{number}", images=frames).notes == []


@pytest.mark.parametrize("stride", [1, 3])
def test_pictures_that_go_on_after_the_last_frame_are_of_another_range(
    stride: int, tmp_path: Path
) -> None:
    """The last frame is `stride`, and as many pictures less one may come after it."""
    late = video_results(tmp_path / "in", stride, options={"stride": stride, "start": 2.0})
    same, longer = (
        pictures(tmp_path / name, 2 * stride + more) for more, name in enumerate(("same", "longer"))
    )
    assert convert(late, "coco", tmp_path / "a.json", images=same).records == 2
    with pytest.raises(ResultFileError) as caught:
        convert(late, "coco", tmp_path / "b.json", images=longer)
    assert str(caught.value).startswith(
        f"{longer}/clip.mp4/{2 * stride:06d}.jpg is there, but {late} ends at frame {stride}, "
        "counted from start=2.0 (--start 2.0); "
    )
    assert not list(tmp_path.glob("*b.json*"))
    shorter = {"stride": stride, "end": 4.0}
    for number, start in enumerate((2.0, None)):  # the pictures may begin where the frames do
        file = changed(late, f"{number}.jsonl", options=shorter | {"start": start})
        assert convert(file, "csv", tmp_path / f"{number}", images=longer).records == 2
    late.write_bytes(late.read_bytes()[:-9])  # its last frame is not known any more
    done = convert(late, "csv", tmp_path / "cut", images=longer)
    assert (done.records, len(done.faults)) == (1, 1)


def test_coco_has_what_fiftyone_imports(tmp_path: Path) -> None:
    """FiftyOne's `COCODetectionDataset`: ids that refer, boxes, scores, and names of files."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").touch()
    (tmp_path / "a.jsonl").write_text(
        dump_line(header()) + dump_line(to_line(found(), image="photos/a.jpg", place="a.jpg"))
    )
    convert(tmp_path / "a.jsonl", "coco", tmp_path / "labels.json", images=photos)
    coco = json.loads((tmp_path / "labels.json").read_text())
    assert all((photos / image["file_name"]).is_file() for image in coco["images"])
    images = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    assert images == {1: SIZE}
    assert {one["id"]: one["name"] for one in coco["categories"]} == {1: NAMES[0], 10: NAMES[1]}
    for one in coco["annotations"]:
        assert one["image_id"] in images and one["category_id"] in (1, 10)
        assert len(one["bbox"]) == 4 and 0 < one["score"] <= 1 and one["iscrowd"] == 0
