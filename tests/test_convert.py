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
from rdlite.resultfile import open_results
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


def test_several_files_become_one_and_their_videos_stay_apart(tmp_path: Path) -> None:
    files = [video_results(tmp_path / "in" / name) for name in "ab"]
    progress: list[int] = []
    done = convert(files, "yolo", tmp_path / "labels", progress=progress.append)
    assert (done.records, done.objects, done.faults, done.notes) == (4, 8, [], [])
    assert sum(progress) == sum(file.stat().st_size for file in files)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("0*.txt"))
    assert names == [f"labels/{v}/clip.mp4/00000{n}.txt" for v in "ab" for n in range(2)]
    convert(files, "coco", tmp_path / "a.json")
    coco = json.loads((tmp_path / "a.json").read_text())
    assert [image["id"] for image in coco["images"]] == [1, 2, 3, 4]
    assert coco["images"][2]["file_name"] == f"{tmp_path}/in/b/clip.mp4/000000"
    convert(files, "jsonl", tmp_path / "all.jsonl")
    joined = open_results(tmp_path / "all.jsonl")
    assert [(r.image, r.frame) for r in joined] == [
        (str(file.with_suffix(".mp4")), n) for file in files for n in range(2)
    ]
    assert (joined.source, joined.warnings()) == (None, [])


def test_joined_files_say_of_all_lines_only_what_holds_for_all(tmp_path: Path) -> None:
    with open_sink("jsonl", tmp_path / "a.jsonl", header=header(options={"conf": 0.3})) as sink:
        sink.write(found(), image="a.jpg", place="a.jpg")
    files = [tmp_path / "a.jsonl"]
    for stride in (2, 2, 3):
        options = {"stride": stride, "conf": 0.3}
        folder = tmp_path / f"in-{len(files)}"
        files.append(video_results(folder, stride, options=options))
    for number, (group, options) in enumerate(
        [
            (files[:2], {"conf": 0.3}),
            (files[1:3], {"stride": 2, "conf": 0.3}),
            (files[1:], {"conf": 0.3}),
        ]
    ):
        joined = tmp_path / f"joined-{number}.jsonl"
        assert convert(group, "jsonl", joined).faults == []
        assert open_results(joined).options == options
        assert convert(joined, "csv", tmp_path / f"{number}.csv").faults == []


def test_different_videos_of_one_name_are_not_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for name in "ab":
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        files.append(video_results(Path("in"), video=name.encode() * len(files)).absolute())
    with pytest.raises(ResultFileError) as caught:
        convert(files, "coco", tmp_path / "a.json")
    assert str(caught.value).startswith(
        f"{files[0]} and {files[1]} are about files of another size that both are named "
        "in/clip.mp4; "
    )
    assert not (tmp_path / "a.json").exists()
    (tmp_path / "again.jsonl").write_bytes(files[0].read_bytes())
    assert convert([files[0], tmp_path / "again.jsonl"], "csv", tmp_path / "a.csv").records == 4


def changed(path: Path, name: str, **keys: Any) -> Path:
    """A copy of a file of results, beside it, with another header."""
    head, rest = path.read_text().split("\n", 1)
    path.with_name(name).write_text(dump_line(json.loads(head) | keys) + rest)
    return path.with_name(name)


def test_a_video_and_its_copy_are_one_and_their_times_are_told(tmp_path: Path) -> None:
    one = video_results(tmp_path / "a")
    copy = changed(one, "copy.jsonl", mtime_ns=1)
    done = convert([one, copy], "csv", tmp_path / "a.csv")
    assert (done.records, done.faults) == (4, [])
    (note,) = done.notes
    assert note.startswith(f"{one} and {copy} are about files of one size and another time")


def test_joined_files_state_a_model_only_where_there_is_one(tmp_path: Path) -> None:
    first = video_results(tmp_path / "a")
    other = changed(first, "other.jsonl", model_sha256="cd" * 32)
    joined = {name: tmp_path / f"{name}.jsonl" for name in ("same", "several", "again")}
    assert convert([first, first], "jsonl", joined["same"]).notes == []
    assert open_results(joined["same"]).header["model_sha256"] == "ab" * 32
    told = "model was abababababab..., now cdcdcdcdcdcd..."
    assert convert([first, other], "jsonl", joined["several"]).notes == [
        f"{other} was made otherwise than {first}: {told}"
    ]
    assert open_results(joined["several"]).header["model_sha256"] is None
    assert convert([joined["several"], first], "jsonl", joined["again"]).notes == [
        f"{first} was made otherwise than {joined['several']}: "
        "model was not stated, now abababababab..."
    ]
    assert open_results(joined["again"]).header["model_sha256"] is None
    convert(joined["several"], "labelstudio", tmp_path / "tasks")
    (version,) = {
        prediction["model_version"]
        for task in json.loads((tmp_path / "tasks" / "tasks.json").read_text())
        for prediction in task["predictions"]
    }
    assert version == "rdlite"


def test_files_of_other_classes_are_not_joined_and_other_options_are_told(tmp_path: Path) -> None:
    first = video_results(tmp_path / "a", options={"conf": 0.3})
    other = video_results(tmp_path / "b", options={"conf": 0.5})
    done = convert([first, other], "csv", tmp_path / "a.csv")
    assert done.notes == [f"{other} was made otherwise than {first}: conf was 0.3, now 0.5"]
    cats = video_results(tmp_path / "c", names=("cat", "dog"))
    with pytest.raises(ResultFileError, match=f"{cats} has other classes than {first}"):
        convert([first, cats], "csv", tmp_path / "b.csv")
    assert not (tmp_path / "b.csv").exists()


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
