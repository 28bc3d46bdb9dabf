"""Files of detections: every format read back by the library or tool that users read it with."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdlite.errors import OptionError
from rdlite.results import Detections
from rdlite.sinks import CocoSink, CsvSink, JsonlSink, jsonl_header

NAMES = ("person", "traffic light")
CATEGORY_IDS = (1, 10)
BOXES = np.array([[10, 20, 30.5, 60], [0, 0, 5, 5]], np.float32)


def found(count: int = 2) -> Detections:
    return Detections(
        xyxy=BOXES[:count],
        confidence=np.array([0.75, 0.5], np.float32)[:count],
        class_id=np.array([1, 0])[:count],
        names=NAMES,
        category_ids=CATEGORY_IDS,
        image_size=(100, 80),
    )


def make(kind: str, path: Path | str, **options: Any) -> Any:
    if kind == "jsonl":
        return JsonlSink(path, jsonl_header("ab" * 32), **options)
    return {"csv": CsvSink, "coco": CocoSink}[kind](path, **options)


KINDS = pytest.mark.parametrize("kind", ["jsonl", "csv", "coco"])


def test_jsonl_holds_a_header_and_one_line_per_image(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with JsonlSink(path, jsonl_header("ab" * 32, options={"conf": 0.3})) as sink:
        sink.write(found(), image="ß 漢字.jpg")
        sink.write(found(0), image="empty.jpg")
    header, first, second = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert header == {"schema": 1, "model_sha256": "ab" * 32, "options": {"conf": 0.3}}
    assert list(first) == ["image", "width", "height", "detections"]
    assert first["image"] == "ß 漢字.jpg"
    assert first["detections"][0] == {
        "xyxy": [10.0, 20.0, 30.5, 60.0],
        "confidence": 0.75,
        "class_id": 1,
        "class_name": "traffic light",
    }
    assert second == {"image": "empty.jpg", "width": 100, "height": 80, "detections": []}


def test_jsonl_of_a_video_holds_the_frame_and_its_times(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"12345")
    path = tmp_path / "a.jsonl"
    with JsonlSink(path, jsonl_header("ab" * 32, source=video)) as sink:
        sink.write(found(), frame=7, pts=None, time=1 / 3)
    header, line = [json.loads(line) for line in path.read_text().splitlines()]
    assert header["source"] == str(video)
    assert header["source_size"] == 5
    assert header["mtime_ns"] == video.stat().st_mtime_ns
    assert list(line) == ["frame", "pts", "time", "width", "height", "detections"]
    assert (line["frame"], line["pts"], line["time"]) == (7, None, 0.333333)


def test_jsonl_lines_are_there_before_the_sink_is_closed(tmp_path: Path) -> None:
    with JsonlSink(tmp_path / "a.jsonl", jsonl_header("ab" * 32)) as sink:
        sink.write(found(), image="a.jpg")
        (partial,) = tmp_path.iterdir()
        assert len(partial.read_text().splitlines()) == 2


@KINDS
def test_a_sink_writes_to_standard_output(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with make(kind, "-") as sink:
        sink.write(found(), image="a.jpg")
    assert "traffic light" in capsys.readouterr().out


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


@KINDS
def test_a_sink_without_images_is_still_a_whole_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    with make(kind, path):
        pass
    text = path.read_text()
    assert text.endswith("\n")
    if kind == "coco":
        assert json.loads(text) == {"annotations": [], "images": [], "categories": []}


@KINDS
def test_a_failing_job_leaves_no_file(tmp_path: Path, kind: str) -> None:
    with pytest.raises(RuntimeError, match="stop"), make(kind, tmp_path / "a") as sink:
        sink.write(found(), image="a.jpg")
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


@KINDS
def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    path.write_text("mine")
    with pytest.raises(OptionError, match="exists already"):
        make(kind, path)
    assert path.read_text() == "mine"
    with make(kind, path, overwrite=True):
        assert path.read_text() == "mine"
    assert path.read_text() != "mine"
    assert os.listdir(tmp_path) == ["a"]


@KINDS
def test_impossible_paths_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(OptionError, match="nowhere"):
        make(kind, tmp_path / "nowhere" / "a")
    with pytest.raises(OptionError, match="is a directory"):
        make(kind, tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    script = """
from rdlite.sinks import JsonlSink
from rdlite.errors import RdliteError
try:
    JsonlSink("-", {})
except RdliteError as error:
    import sys
    sys.stderr.write(str(error))
"""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
    assert "- cannot be written: No space left on device" in done.stderr
