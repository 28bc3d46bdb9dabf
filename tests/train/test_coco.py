from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdlite.evaluate.dataset import DataError
from tests.annotated import COCO_SIZE, coco_content, write_json
from train.coco import load_coco


def test_load_coco_gives_arrays_in_the_order_of_the_file(tmp_path: Path) -> None:
    value = coco_content(2)
    value["annotations"].append(
        {"image_id": 11, "category_id": 3, "bbox": [50, 30, 99, 99], "id": 99}
    )
    value["annotations"].append({"image_id": 11, "category_id": 3, "bbox": [9, 9, 0, 5]})
    value["annotations"].append({"image_id": 11, "category_id": 3, "bbox": [60, 9, 5, 5], "id": 98})
    value["annotations"].append(
        {"image_id": 10, "category_id": 3, "bbox": [1, 1, 5, 5], "ignore": 1}
    )

    coco = load_coco(write_json(tmp_path, value))

    assert (coco.names, coco.category_ids) == (("cat", "dog"), (3, 7))
    assert [image.file_name for image in coco.images] == ["0.png", "1.png"]
    assert coco.images[0].size == COCO_SIZE
    first, second = (image.targets for image in coco.images)
    assert first.labels.tolist() == [2, 1, 1] and first.labels.dtype == np.int64
    assert first.ignore.tolist() == [False, False, True]
    assert first.score.tolist() == [0.5, 1, 1]
    assert second.boxes.tolist() == [[5, 5, 25, 15], [30, 20, 50, 35], [50, 30, 60, 40]]
    assert coco.empty_boxes == ("1.png, annotation ?",)
    assert coco.outside_boxes == ("1.png, annotation 98",)
    assert coco.clipped_boxes == ("1.png, annotation 99",)
    assert coco.dropped_boxes == 2


def test_load_coco_accepts_images_without_boxes(tmp_path: Path) -> None:
    value = coco_content(2)
    value["annotations"] = value["annotations"][:1]
    coco = load_coco(write_json(tmp_path, value))
    assert coco.images[1].targets.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"bbox": [5, 5, 0, 9]}, "width or height: 1,"),
        ({"bbox": [90, 5, 5, 9]}, "outside their image: 1,"),
        ({"bbox": [1, 2, 3, 4], "iscrowd": 1}, "outside their image: 0,"),
        (None, "annotations: 0,"),
    ],
)
def test_set_with_no_box_to_learn_from_is_refused(
    tmp_path: Path, fields: dict[str, Any] | None, count: str
) -> None:
    boxes = [{"image_id": 10, "category_id": 3, **fields}] if fields else []
    path = write_json(tmp_path, coco_content(1) | {"annotations": boxes})
    with pytest.raises(DataError, match=f"no box to learn from.*{count}"):
        load_coco(path)


def test_rounding_of_less_than_a_pixel_is_not_counted_as_clipped(tmp_path: Path) -> None:
    value = coco_content(1)
    value["annotations"][0]["bbox"] = [-0.5, 0, 60.9, 40.5]
    coco = load_coco(write_json(tmp_path, value))
    assert coco.images[0].targets.boxes[0].tolist() == [0, 0, 60, 40]
    assert coco.clipped_boxes == ()


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("images", [], "is empty"),
        ("images", None, 'no list "images"'),
        ("images", [{"id": 1, "file_name": "a.png"}], 'lacks "width"'),
        ("images", [{"id": 1, "file_name": "a", "width": 0, "height": 5}], "has size"),
        ("images", coco_content(1)["images"] * 2, "occurs twice in images"),
        ("categories", coco_content(1)["categories"] * 2, "occurs twice in categories"),
        ("categories", [{"id": 3, "name": " "}], "empty name"),
        ("annotations", coco_content(1)["annotations"][:1] * 2, "occurs twice in annotations"),
        (
            "annotations",
            [{"image_id": 10, "category_id": 4, "bbox": [0, 0, 1, 1]}],
            "category_id 4",
        ),
        ("annotations", [{"image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1]}], "image_id 9"),
        ("annotations", [{"image_id": 10, "category_id": 3, "bbox": [0, 0, 1]}], "bbox"),
        ("annotations", [{"image_id": 10, "category_id": 3, "bbox": [0, 0, 1, None]}], "bbox"),
        (
            "annotations",
            [{"image_id": 10, "category_id": 3, "bbox": [0, 0, 1, 1], "score": "high"}],
            "score 'high'",
        ),
    ],
)
def test_bad_annotation_file_is_refused_in_a_sentence(
    tmp_path: Path, where: str, change: Any, message: str
) -> None:
    path = write_json(tmp_path, coco_content(1) | {where: change})
    with pytest.raises(DataError, match=message) as caught:
        load_coco(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_of_several_bad_annotations_one_is_named_and_all_are_counted(tmp_path: Path) -> None:
    value = coco_content(3)
    for annotation in value["annotations"][1:]:
        annotation["category_id"] = 99
    with pytest.raises(DataError, match=r"category_id 99.*\(5 faults; .* unknown class: 5\)"):
        load_coco(write_json(tmp_path, value))


def test_faults_of_all_kinds_are_told_at_once(tmp_path: Path) -> None:
    value = coco_content(4)
    value["images"][1]["id"] = value["images"][0]["id"]  # and so nothing has the id 11
    value["images"][2]["width"] = None
    value["categories"][1]["name"] = ""
    value["annotations"][0] |= {"category_id": 9, "bbox": [1, 2, 3, float("nan")]}
    value["annotations"][2] |= {"bbox": [1, 2, 3]}
    value["annotations"][3] |= {"id": 0, "area": "large"}
    with pytest.raises(DataError) as caught:
        load_coco(write_json(tmp_path, value))
    faults = caught.value.faults
    assert {kind: len(cases) for kind, cases in faults.items()} == {
        "images without a size": 1,
        "images whose id occurs twice": 1,
        "categories with an empty name": 1,
        "annotations whose id occurs twice": 1,
        "annotations of an unknown class": 1,
        "boxes that are not four finite numbers": 2,
        "annotations whose area is not a finite number": 1,
        "annotations of an unknown image": 2,
    }
    assert faults["boxes that are not four finite numbers"] == [
        "annotation 0 has bbox [1, 2, 3, nan]; give four finite numbers x, y, width, height",
        "annotation 4 has bbox [1, 2, 3]; give four finite numbers x, y, width, height",
    ]
    assert str(caught.value).startswith(f"{tmp_path / 'set.json'}: image 2.png has size (None, 40)")
    assert "(10 faults; " in str(caught.value)


def test_missing_lists_and_fields_hide_no_other_fault(tmp_path: Path) -> None:
    value = coco_content(2)
    del value["categories"]
    del value["images"][0]["width"], value["annotations"][3]["bbox"]
    value["images"].append(7)
    value["annotations"][0]["image_id"] = [1]
    with pytest.raises(DataError) as caught:
        load_coco(write_json(tmp_path, value))
    assert {kind: len(cases) for kind, cases in caught.value.faults.items()} == {
        "images that lack a field": 5,  # the four of the last, which is no object
        "annotations that lack a field": 1,
        "lists that are missing": 1,
        "annotations of an unknown image": 1,
    }


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"images": [], "annotations": []}'])
def test_file_that_is_not_coco_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "set.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=r"set\.json"):
        load_coco(path)
