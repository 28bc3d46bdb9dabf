"""Detections: validation, indexing, copies between processes, and every export format."""

from __future__ import annotations

import json
import pickle
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given

from rdlite.errors import OptionError
from rdlite.results import Detection, Detections
from tests.samples import detections as random_detections

NAMES = ("person", "dog", "hair drier")
BOXES = [[10, 20, 110, 220], [0, 0, 640, 480], [5.25, 6.5, 7.75, 9.0]]


def detections(n: int = 3, **changes: Any) -> Detections:
    values: dict[str, Any] = {
        "xyxy": np.array(BOXES[:n], np.float64).reshape(n, 4),
        "confidence": [0.9, 0.5, 0.25][:n],
        "class_id": [0, 2, 0][:n],
        "names": NAMES,
        "category_ids": (1, 18, 89),
        "image_size": (640, 480),
        "speed": {"inference": 40.0},
        "dropped_nonfinite": 2,
    }
    return Detections(**(values | changes))


def test_arrays_have_the_promised_types_and_are_read_only() -> None:
    found = detections()
    assert found.xyxy.dtype == found.confidence.dtype == np.float32
    assert found.class_id.dtype == np.int64
    for array in (found.xyxy, found.confidence, found.class_id):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(TypeError):
        found.speed["inference"] = 0  # type: ignore[index]


def test_later_changes_to_the_given_arrays_do_not_reach_the_result() -> None:
    scores = np.array([0.9, 0.5, 0.25], np.float32)
    found = detections(confidence=scores)
    scores[0] = 0
    assert found.confidence[0] == np.float32(0.9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xyxy": np.zeros((3, 5))}, r"xyxy must be \(3, 4\).*got \(3, 5\)"),
        ({"class_id": np.zeros((3, 1), np.int64)}, r"got \(3, 4\), \(3,\), \(3, 1\)"),
        ({"xyxy": np.zeros((2, 4))}, r"for 3 class ids, got \(2, 4\)"),
        ({"confidence": [0.5]}, r"got \(3, 4\), \(1,\), \(3,\)"),
        ({"class_id": [0, 1, 3]}, "class_id must be from 0 to 2, got 0 to 3"),
        ({"class_id": [0, -1, 1]}, "got -1 to 1"),
        ({"category_ids": (1, 2)}, "one id for each of 3 names, got 2"),
    ],
)
def test_values_that_disagree_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        detections(**changes)


def test_iteration_yields_plain_values_in_order() -> None:
    first, *rest = detections()
    assert first == Detection((10.0, 20.0, 110.0, 220.0), float(np.float32(0.9)), 0, "person")
    assert [one.name for one in rest] == ["hair drier", "person"]
    assert detections().class_names == ["person", "hair drier", "person"]


def test_an_integer_index_gives_one_detection() -> None:
    found = detections()
    assert found[0] == next(iter(found))
    assert found[np.int64(-1)].xyxy == (5.25, 6.5, 7.75, 9.0)
    with pytest.raises(IndexError):
        found[3]


@pytest.mark.parametrize(
    ("index", "kept"),
    [
        (slice(1, None), [1, 2]),
        ([2, 0], [2, 0]),
        ([], []),
        ([True, False, True], [0, 2]),
        (np.array([False, False, False]), []),
        (np.array([1]), [1]),
    ],
)
def test_other_indices_give_a_smaller_value_with_the_same_facts(
    index: Any, kept: list[int]
) -> None:
    found = detections()
    part = found[index]
    np.testing.assert_array_equal(part.xyxy, found.xyxy[kept])
    np.testing.assert_array_equal(part.class_id, found.class_id[kept])
    assert (part.names, part.image_size, part.dropped_nonfinite) == (NAMES, (640, 480), 2)
    assert part.speed == {"inference": 40.0}


def test_a_mask_of_another_length_is_an_error() -> None:
    with pytest.raises(IndexError):
        detections()[np.array([True])]


def test_pickle_keeps_values_and_stays_read_only() -> None:
    found = detections()
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.xyxy, found.xyxy)
    assert again.to_dict() == found.to_dict()
    assert again.speed == found.speed
    assert not again.xyxy.flags.writeable


def test_repr_counts_the_classes() -> None:
    assert repr(detections()) == "<Detections 2 person, 1 hair drier in 640x480>"
    assert repr(Detections.empty()) == "<Detections nothing in 0x0>"


def test_to_dict_is_json_with_rounded_numbers() -> None:
    value = json.loads(json.dumps(detections(confidence=[1 / 3] * 3).to_dict()))
    assert (value["width"], value["height"], len(value["detections"])) == (640, 480, 3)
    assert value["detections"][2] == {
        "xyxy": [5.25, 6.5, 7.75, 9.0],
        "confidence": 0.333333,
        "class_id": 0,
        "class_name": "person",
    }


@given(found=random_detections())
def test_from_dict_is_as_precise_as_the_file(found: Detections) -> None:
    line = json.loads(json.dumps(found.to_dict()))
    again = Detections.from_dict(line, names=found.names, category_ids=found.category_ids)
    objects = line["detections"]
    boxes = np.array([one["xyxy"] for one in objects], np.float32).reshape(-1, 4)
    np.testing.assert_array_equal(again.xyxy, boxes)
    np.testing.assert_array_equal(again.confidence, np.float32([o["confidence"] for o in objects]))
    np.testing.assert_allclose(again.xyxy, found.xyxy, rtol=0, atol=1.5e-3)
    np.testing.assert_array_equal(again.class_id, found.class_id)
    assert again.to_dict() == line
    assert again.to_coco(7) == found.to_coco(7)
    assert again.to_yolo() == found.to_yolo()
    assert again.to_voc("a.jpg") == found.to_voc("a.jpg")


def one(**changes: Any) -> dict[str, Any]:
    line = detections(1).to_dict()
    line["detections"][0] |= changes
    return line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({}, "KeyError"),
        ({"width": 1, "height": 1, "detections": None}, "TypeError"),
        ({"width": 1, "height": 1, "detections": [1]}, "TypeError"),
        ({"detections": []}, "KeyError"),
        (one(xyxy=[1, 2, 3]), "ValueError"),
        (one(xyxy="abcd"), "ValueError"),
        (one(xyxy=[[1, 2, 3, 4], [1, 2, 3, 4]]), r"got \(2, 4\)"),
        (one(xyxy=[0, 0, float("inf"), 1]), "finite"),
        (one(xyxy=[0, 0, 1e39, 1]), "finite"),
        (one(confidence=float("nan")), "scores from 0 to 1"),
        (one(confidence=1.5), "scores from 0 to 1"),
        (one() | {"width": 2**31}, "size 2147483648 x 480"),
        (one() | {"dropped_nonfinite": "2"}, "dropped_nonfinite '2'"),
        (one() | {"dropped_nonfinite": -1}, "dropped_nonfinite -1"),
        (one(class_id=3), "class_id must be from 0 to 2"),
        (one(class_id=10**30), "OverflowError"),
        (one(class_name="cat"), r"\['person'\] by number, \['cat'\] by name"),
    ],
)
def test_from_dict_refuses_what_to_dict_does_not_write(line: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Detections.from_dict(line, names=NAMES, category_ids=(1, 18, 89))


def test_to_coco_maps_class_ids_to_category_ids() -> None:
    entries = json.loads(json.dumps(detections().to_coco(42)))
    assert entries[1] == {
        "image_id": 42,
        "category_id": 89,
        "bbox": [0, 0, 640, 480],
        "score": 0.5,
    }
    assert entries[0]["bbox"] == [10, 20, 100, 200]


def test_to_yolo_is_normalised_centre_and_size() -> None:
    lines = detections(2).to_yolo().splitlines()
    assert lines[1] == "2 0.500000 0.500000 1.000000 1.000000 0.500000"
    np.testing.assert_allclose(
        [float(value) for value in lines[0].split()],
        [0, 60 / 640, 120 / 480, 100 / 640, 200 / 480, 0.9],
        atol=1e-6,
    )


def test_to_yolo_for_training_has_five_columns() -> None:
    with_scores = [line.split() for line in detections().to_yolo().splitlines()]
    without = detections().to_yolo(confidence=False)
    assert [line.split() for line in without.splitlines()] == [line[:5] for line in with_scores]


def test_to_voc_counts_pixels_from_one_and_escapes_names() -> None:
    found = detections(names=("cat & dog", "b", "c"), class_id=[0, 1, 2])
    root = ElementTree.fromstring(found.to_voc("a<b>.jpg"))
    assert root.findtext("filename") == "a<b>.jpg"
    assert root.findtext("object/name") == "cat & dog"
    assert root.findtext("size/width") == "640"
    corners = [[int(side.text or "") for side in box] for box in root.iter("bndbox")]
    assert corners[:2] == [[11, 21, 110, 220], [1, 1, 640, 480]]


def test_to_voc_escapes_what_xml_cannot_hold() -> None:
    text = detections(1, names=("a\x00", "b", "c")).to_voc("a\x01\t\udcff\ufffe漢.jpg")
    root = ElementTree.fromstring(text.encode())
    assert root.findtext("filename") == "a\\u0001\t\\udcff\\ufffe漢.jpg"
    assert root.findtext("object/name") == "a\\u0000"


def test_to_voc_never_ends_before_it_starts() -> None:
    root = ElementTree.fromstring(detections(1, xyxy=[[7.1, 7.1, 7.3, 7.3]]).to_voc("a.png"))
    assert [side.text for side in root.iter("xmin")] == [side.text for side in root.iter("xmax")]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_to_pandas_has_one_row_per_object(n: int) -> None:
    pytest.importorskip("pandas")
    frame = detections(n).to_pandas()
    columns = ["x_min", "y_min", "x_max", "y_max", "class_id", "class_name", "confidence"]
    assert list(frame.columns) == columns
    assert frame["class_name"].tolist() == ["person", "hair drier", "person"][:n]
    frame["confidence"] = 0.0  # a copy: the caller may change it


@pytest.mark.parametrize("n", [0, 1, 3])
def test_to_supervision_has_the_same_objects(n: int) -> None:
    supervision = pytest.importorskip("supervision")
    found = detections(n)
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert len(theirs) == n
    np.testing.assert_array_equal(theirs.xyxy, found.xyxy)
    assert list(theirs.data["class_name"]) == found.class_names


def test_empty_passes_through_every_export() -> None:
    empty = Detections.empty(names=NAMES, category_ids=(1, 18, 89), image_size=(4, 3))
    assert len(empty) == 0
    assert list(empty) == []
    assert empty.xyxy.shape == (0, 4)
    assert empty.to_dict() == {"width": 4, "height": 3, "detections": []}
    assert empty.to_coco(1) == []
    assert empty.to_yolo() == ""
    assert ElementTree.fromstring(empty.to_voc("a")).findall("object") == []
    assert len(empty[[]]) == len(empty[:5]) == 0
