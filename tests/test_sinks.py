"""What all formats do alike; JSON Lines, CSV and COCO read back by what users read them with."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rdlite.errors import OptionError, RdliteError
from rdlite.sinks import FORMATS, CocoSink, CsvSink, JsonlSink, Sink, open_sink
from tests.command import lines
from tests.samples import CATEGORY_IDS, found, header, small_disk

ALL = pytest.mark.parametrize("format", FORMATS)
FILES = pytest.mark.parametrize("format", [name for name in FORMATS if not FORMATS[name].folder])


def make(format: str, path: Path | str, **options: Any) -> Sink:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    return open_sink(format, path, header=header(), **options)


def content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


@ALL
def test_the_output_has_its_name_only_when_it_is_whole(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"found{FORMATS[format].ending}"
    with make(format, path) as sink:
        sink.write(found(), image="a.jpg")
        assert not path.exists()
    assert os.listdir(tmp_path) == [path.name]
    assert path.is_dir() == FORMATS[format].folder
    assert sink.warnings() == []


@ALL
def test_an_output_without_images_is_still_whole(tmp_path: Path, format: str) -> None:
    with make(format, tmp_path / "a"):
        pass
    assert os.listdir(tmp_path) == ["a"]


@ALL
@pytest.mark.parametrize("key", ["image", "place"])
def test_a_name_with_half_a_character_is_refused(tmp_path: Path, format: str, key: str) -> None:
    """Results that hold one are called damaged."""
    name = {"image": "a.jpg", key: "a\ud800.jpg"}
    with pytest.raises(OptionError) as caught, make(format, tmp_path / "a") as sink:
        sink.write(found(), **name)
    assert str(caught.value) == (
        r"'a\ud800.jpg' cannot be written: '\ud800' is half a character; "
        "give another name as image or place"
    )
    assert not list(tmp_path.iterdir())


@ALL
def test_the_same_detections_make_the_same_bytes(tmp_path: Path, format: str) -> None:
    for name in ("a", "b"):
        with make(format, tmp_path / name) as sink:
            sink.write(found(), image="a.jpg")
            sink.write(found(1), image="clip.mp4", frame=12, pts=4, time=0.48)
    assert content(tmp_path / "a") == content(tmp_path / "b")


@ALL
def test_a_failing_job_leaves_no_file(tmp_path: Path, format: str) -> None:
    with pytest.raises(RuntimeError, match="stop"), make(format, tmp_path / "a") as sink:
        sink.write(found(), image="a.jpg")
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


@ALL
def test_an_existing_output_is_kept_unless_told_otherwise(tmp_path: Path, format: str) -> None:
    path = tmp_path / "a"
    with make(format, path) as sink:
        sink.write(found(), image="old.jpg")
    before = content(path)
    with pytest.raises(OptionError, match="exists already"):
        make(format, path)
    with make(format, path, overwrite=True) as sink:
        sink.write(found(1), image="new.jpg")
        assert content(path) == before
    assert content(path) != before
    assert os.listdir(tmp_path) == ["a"]


@ALL
def test_impossible_paths_are_refused(tmp_path: Path, format: str) -> None:
    with pytest.raises(OptionError, match="nowhere does not exist"):
        make(format, tmp_path / "nowhere" / "a")


@FILES
def test_a_folder_is_no_place_for_a_file(tmp_path: Path, format: str) -> None:
    with pytest.raises(OptionError, match="is a directory"):
        make(format, tmp_path)


@ALL
def test_a_full_disk_is_named_and_leaves_no_file(tmp_path: Path, format: str) -> None:
    with (
        pytest.raises(RdliteError, match="cannot be written: File too large"),
        small_disk(20),
        make(format, tmp_path / "a") as sink,
    ):
        for number in range(100):
            sink.write(found(), image=f"{number}.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_for_the_images_of_coco_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(RdliteError, match=r"a\.json cannot be written: File too large"),
        small_disk(1 << 20),
        CocoSink(tmp_path / "a.json") as sink,
    ):
        for _ in range(50):
            sink.write(found(0), image="a" * 50_000)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(OptionError, match=r"one of jsonl, coco, .*, labelstudio, got 'xml'"):
        open_sink("xml", "a", header=header())


def test_jsonl_holds_a_header_and_one_line_per_image(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with JsonlSink(path, header(options={"conf": 0.3})) as sink:
        sink.write(found(), image="ß 漢字.jpg", place="ß 漢字.jpg")
        sink.write(found(0), image="photos/empty.jpg", place="empty.jpg")
    head, first, second = lines(path)
    assert head == {
        "schema": 1,
        "model_sha256": "ab" * 32,
        "options": {"conf": 0.3},
        "names": ["person", "traffic light"],
        "category_ids": [1, 10],
    }
    assert list(first) == ["image", "width", "height", "detections"]
    assert first["image"] == "ß 漢字.jpg"
    assert first["detections"][0] == {
        "xyxy": [10.0, 20.0, 30.5, 60.0],
        "confidence": 0.75,
        "class_id": 1,
        "class_name": "traffic light",
    }
    assert second == {
        "image": "photos/empty.jpg",
        "place": "empty.jpg",
        "width": 100,
        "height": 80,
        "detections": [],
    }


def test_jsonl_of_a_video_holds_the_frame_and_its_times(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"12345")
    path = tmp_path / "a.jsonl"
    with JsonlSink(path, header(source=video)) as sink:
        sink.write(found(), image="clip.mp4", frame=7, pts=None, time=1 / 3)
    head, line = lines(path)
    assert head["source"] == str(video)
    assert head["source_size"] == 5
    assert head["mtime_ns"] == video.stat().st_mtime_ns
    assert list(line) == ["frame", "pts", "time", "width", "height", "detections"]
    assert (line["frame"], line["pts"], line["time"]) == (7, None, 0.333333)


def test_jsonl_of_several_videos_names_the_video_of_each_frame(tmp_path: Path) -> None:
    with JsonlSink(tmp_path / "a.jsonl", header()) as sink:
        sink.write(found(0), image="x/a.mp4", place="a.mp4", frame=0, pts=0, time=0.0)
        sink.write(found(0), image="b.mp4", frame=0, pts=0, time=0.0)
    _, first, second = lines(tmp_path / "a.jsonl")
    assert (first["image"], first["place"], second["image"]) == ("x/a.mp4", "a.mp4", "b.mp4")
    assert list(second) == ["image", "frame", "pts", "time", "width", "height", "detections"]


def test_jsonl_lines_are_there_before_the_sink_is_closed(tmp_path: Path) -> None:
    with JsonlSink(tmp_path / "a.jsonl", header()) as sink:
        sink.write(found(), image="a.jpg")
        (partial,) = tmp_path.iterdir()
        assert len(partial.read_text().splitlines()) == 2


def test_csv_has_the_columns_of_supervision(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with CsvSink(path) as sink:
        sink.write(found(), image='odd, "name".jpg')
        sink.write(found(1), frame=3, time=0.12)
        sink.write(found(0), image="empty.jpg")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["x_min", "y_min", "x_max", "y_max"]
    assert len(rows) == 3
    assert rows[0]["image"] == 'odd, "name".jpg'
    assert (rows[0]["x_max"], rows[0]["class_name"]) == ("30.5", "traffic light")
    assert (rows[2]["image"], rows[2]["frame"], rows[2]["time"]) == ("", "3", "0.12")


ODD_NAMES = ["a\nb", "a\rb", "a\r\nb", ' "a, b"', "ß 漢字", "\u2028", "\\", "'", "NA", "0"]


def test_csv_keeps_every_name_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with CsvSink(path) as sink:
        for name in [*ODD_NAMES, "\udcff"]:
            sink.write(found(1), image=name)
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [*ODD_NAMES, "\udcff"]


def test_pandas_reads_csv(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with CsvSink(tmp_path / "a.csv") as sink:
        for name in ODD_NAMES:
            sink.write(found(), image=name)
    frame = pandas.read_csv(tmp_path / "a.csv", keep_default_na=False, dtype={"image": str})
    assert frame["image"][::2].tolist() == ODD_NAMES
    expected = pandas.concat([found().to_pandas()] * len(ODD_NAMES), ignore_index=True)
    pandas.testing.assert_frame_equal(frame[expected.columns], expected, check_dtype=False)


def test_coco_results_are_scored_perfect_against_themselves(tmp_path: Path) -> None:
    coco = pytest.importorskip("faster_coco_eval")
    truth = {
        "images": [{"id": 42, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": [{"id": number, "name": str(number)} for number in CATEGORY_IDS],
        "annotations": [
            {"id": n + 1, "image_id": 42, "category_id": category, "iscrowd": 0,
             "bbox": box, "area": box[2] * box[3]}
            for n, (category, box) in enumerate([(10, [10, 20, 20.5, 40]), (1, [0, 0, 5, 5])])
        ],
    }  # fmt: skip
    path = tmp_path / "results.json"
    with CocoSink(path, image_ids={"a.jpg": 42}) as sink:
        sink.write(found(), image="a.jpg")
    results = json.loads(path.read_text())
    assert set(results[0]) == {"image_id", "category_id", "bbox", "score"}
    annotations = coco.COCO(truth)
    evaluation = coco.COCOeval_faster(
        annotations, annotations.loadRes(results), "bbox", print_function=lambda *_: None
    )
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_coco_results_refuse_an_image_without_an_id(tmp_path: Path) -> None:
    with (
        pytest.raises(OptionError, match=r"b\.jpg"),
        CocoSink(tmp_path / "a.json", image_ids={"a.jpg": 42}) as sink,
    ):
        sink.write(found(), image="b.jpg")
    assert list(tmp_path.iterdir()) == []


def test_coco_without_ids_is_a_data_set_that_names_its_images(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with CocoSink(path) as sink:
        sink.write(found(), image="a.jpg")
        sink.write(found(0), image="empty.jpg")
        sink.write(found(1), image="clip.mp4", frame=12, time=0.48)
    data = json.loads(path.read_text())
    assert [image["file_name"] for image in data["images"]] == [
        "a.jpg",
        "empty.jpg",
        "clip.mp4/000012",
    ]
    assert [image["id"] for image in data["images"]] == [1, 2, 3]
    assert data["images"][0]["width"] == 100
    assert data["images"][2]["time"] == 0.48
    assert [entry["image_id"] for entry in data["annotations"]] == [1, 1, 3]
    assert [entry["id"] for entry in data["annotations"]] == [1, 2, 3]
    assert data["annotations"][0]["score"] == 0.75
    assert data["annotations"][0]["area"] == 20.5 * 40
    assert data["categories"] == [{"id": 1, "name": "person"}, {"id": 10, "name": "traffic light"}]


def test_coco_without_images_is_an_empty_data_set(tmp_path: Path) -> None:
    with CocoSink(tmp_path / "a.json"):
        pass
    data = json.loads((tmp_path / "a.json").read_text())
    assert data == {"annotations": [], "images": [], "categories": []}


def test_pycocotools_reads_both_forms_of_coco(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO
    with CocoSink(tmp_path / "set.json") as sink:
        for name in ODD_NAMES:
            sink.write(found(), image=name)
    with CocoSink(tmp_path / "results.json", image_ids={ODD_NAMES[3]: 4}) as sink:
        sink.write(found(), image=ODD_NAMES[3])
    with contextlib.redirect_stdout(io.StringIO()):
        data = coco(str(tmp_path / "set.json"))
        results = data.loadRes(str(tmp_path / "results.json"))
    assert [image["file_name"] for image in data.loadImgs(data.getImgIds())] == ODD_NAMES
    boxes = [entry["bbox"] for entry in data.loadAnns(data.getAnnIds(imgIds=[4]))]
    assert boxes == [[10, 20, 20.5, 40], [0, 0, 5, 5]]
    assert [entry["bbox"] for entry in results.loadAnns(results.getAnnIds())] == boxes
    assert [c["name"] for c in data.loadCats(data.getCatIds())] == ["person", "traffic light"]


MEMORY = """
import os, sys
from rdlite.sinks import open_sink
from tests.samples import found, header

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

format, path = sys.argv[1:]
with open_sink(format, path, header=header()) as sink:
    for number in range(100_000):
        if number == 40_000:
            before = resident()
        sink.write(found(), image=f"{number // 1000}/{number}.jpg")
    print(resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
@ALL
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path, format: str) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, format, tmp_path / "a"],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
    )  # fmt: skip
    # a row group of Parquet takes 30 MB, which comes and goes
    assert int(done.stdout) < (40 if format == "parquet" else 2) * 2**20
