"""Label Studio: tasks that it takes, and the interface that they need."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rdlite.errors import OptionError
from rdlite.sinks import open_sink
from tests.samples import NAMES, SIZE, found, header


def tasks(folder: Path, *places: dict[str, Any]) -> list[dict[str, Any]]:
    with open_sink("labelstudio", folder, header=header(), overwrite=True) as sink:
        for count, where in enumerate(places):
            sink.write(found(2 - count % 3), **where)
    content: list[dict[str, Any]] = json.loads((folder / "tasks.json").read_text())
    return content


def test_boxes_are_percentages_of_the_image(tmp_path: Path) -> None:
    (task,) = tasks(tmp_path / "out", {"image": "photos/a b.jpg"})
    assert task["data"] == {"image": "/data/local-files/?d=photos/a%20b.jpg"}
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "rdlite abababababab"
    assert prediction["score"] == 0.625
    first, second = prediction["result"]
    assert first["value"] == {
        "x": 10.0,
        "y": 25.0,
        "width": 20.5,
        "height": 50.0,
        "rotation": 0,
        "rectanglelabels": ["traffic light"],
    }
    assert (first["original_width"], first["original_height"]) == SIZE
    assert (first["score"], second["score"], first["type"]) == (0.75, 0.5, "rectanglelabels")
    assert first["id"] != second["id"]


def test_names_of_images_and_frames(tmp_path: Path) -> None:
    frame = {"image": "clip.mp4", "frame": 7, "time": 0.28}
    places = [frame, {"image": "s3://bucket/a b.jpg"}, {"image": "ß\udcff.jpg"}]
    data = [task["data"] for task in tasks(tmp_path / "out", *places)]
    assert data == [
        {"image": "/data/local-files/?d=clip.mp4/000007.jpg", "frame": 7, "time": 0.28},
        {"image": "s3://bucket/a b.jpg"},
        {"image": "/data/local-files/?d=%C3%9F%FF.jpg"},
    ]
    assert tasks(tmp_path / "out") == []


def test_a_class_name_that_xml_cannot_hold_is_one_label(tmp_path: Path) -> None:
    names = ("a\x01", "b")
    one = replace(found(), names=names)
    with open_sink("labelstudio", tmp_path / "out", header=header(names=names)) as sink:
        sink.write(one, image="a.jpg")
    labels = ElementTree.parse(tmp_path / "out" / "label_config.xml").iter("Label")
    (task,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    used = {r["value"]["rectanglelabels"][0] for r in task["predictions"][0]["result"]}
    assert {label.get("value") for label in labels} == used == {r"a\u0001", "b"}


def test_the_interface_names_all_classes(tmp_path: Path) -> None:
    tasks(tmp_path / "out")
    view = ElementTree.parse(tmp_path / "out" / "label_config.xml")
    assert [label.get("value") for label in view.iter("Label")] == list(NAMES)


def test_only_such_a_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").touch()
    with pytest.raises(OptionError, match="holds files of another kind"):
        tasks(tmp_path / "mine")
    with pytest.raises(OptionError, match="cannot go to standard output"):
        open_sink("labelstudio", "-", header=header())


def test_label_studio_accepts_all_of_it(tmp_path: Path) -> None:
    interface = pytest.importorskip(
        "label_studio_sdk.label_interface",
        reason="Label Studio's own check needs label-studio-sdk, in an environment of its own",
    )
    frame = {"image": "clip.mp4", "frame": 7, "time": 0.28}
    written = tasks(tmp_path / "out", {"image": "a.jpg"}, frame, {"image": "b.jpg"})
    config = interface.LabelInterface((tmp_path / "out" / "label_config.xml").read_text())
    config.validate()
    for task in written:
        assert config.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            assert config.validate_prediction(prediction, return_errors=True) == []
    written[0]["predictions"][0]["result"][0]["value"]["rectanglelabels"] = ["cat"]
    assert config.validate_prediction(written[0]["predictions"][0], return_errors=True)
