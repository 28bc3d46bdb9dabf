import json
import math
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rdlite.detector import Detector
from rdlite.errors import OptionError
from rdlite.evaluate import evaluate
from rdlite.evaluate.dataset import DataError
from rdlite.results import Detections
from tests.cocosets import NAMES, SCENES, Object, annotation, coco_eval, write_set

pytest.importorskip("faster_coco_eval")


@pytest.fixture
def detector(tiny_model: Path) -> Detector:
    return Detector(tiny_model)


def test_perfect_detector_has_ap_one(detector: Detector, tmp_path: Path) -> None:
    result = evaluate(detector, write_set(tmp_path, SCENES), tmp_path)
    assert (result.ap, result.ap50, result.ap75, result.ap_small) == pytest.approx((1, 1, 1, 1))
    assert result.ar == pytest.approx(1)
    assert math.isnan(result.ap_medium) and math.isnan(result.ap_large)
    assert list(result.per_class) == ["person", "bicycle", "car"]
    for one, objects in zip(result.per_class.values(), (2, 2, 1), strict=True):
        assert one[:3] == pytest.approx((1, 1, 1))
        assert (one.objects, one.f1) == (objects, 1)
    assert (result.images, result.failed) == (4, ())
    assert result.precision50.shape == (3, 101)
    assert (result.precision50 == 1).all()


def test_missed_and_shifted_objects_lower_ap(detector: Detector, tmp_path: Path) -> None:
    annotations = [
        annotation(0, (1, 1, 1)),
        annotation(0, (1, 3, 3)),  # the picture shows no such person
        {"image_id": 0, "category_id": 3, "bbox": [64, 32, 16, 12], "id": 1},  # IoU 0.75
    ]
    result = evaluate(detector, write_set(tmp_path, SCENES[:1], annotations=annotations), tmp_path)
    half = 51 / 101  # precision 1 up to recall 0.5, at 101 recalls
    assert result.per_class["person"][:2] == pytest.approx((half, half))
    assert result.per_class["car"][:2] == pytest.approx((0.6, 1))  # right at IoU 0.50 ... 0.75
    assert result.ap50 == pytest.approx((half + 1) / 2)
    assert result.ap75 == pytest.approx((half + 1) / 2)


def test_classes_without_annotations_neither_count_nor_use_up_max_det(
    detector: Detector, tmp_path: Path
) -> None:
    crowd = [(1, column, row) for column in range(6) for row in range(3)]
    scene: list[Object] = [*crowd, (3, 5, 3)]
    path = write_set(tmp_path, [scene], annotations=[annotation(0, (3, 5, 3))])
    result = evaluate(detector, path, tmp_path, max_det=1)
    assert list(result.per_class) == ["car"]
    assert result.ap == pytest.approx(1)


@pytest.mark.parametrize("flag", ["iscrowd", "ignore"])
def test_ignored_objects_are_neither_right_nor_wrong(
    detector: Detector, tmp_path: Path, flag: str
) -> None:
    annotations = [annotation(0, (1, 1, 1), **{flag: 1}), annotation(0, (3, 4, 2))]
    path = write_set(tmp_path, SCENES[:1], annotations=annotations)
    result = evaluate(detector, path, tmp_path)
    assert math.isnan(result.per_class["person"][0])
    assert result.ap == pytest.approx(1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-60]), ""),
        (lambda path: path.write_bytes(b"not an image"), ""),
        (lambda path: path.unlink(), "neither as a file"),
        (lambda path: cv2.imwrite(str(path), np.zeros((96, 64, 3), np.uint8)), "64x96"),
    ],
)
def test_unreadable_image_is_reported_and_does_not_count(
    detector: Detector, tmp_path: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    path = write_set(tmp_path, SCENES)
    spoil(tmp_path / "1.png")
    result = evaluate(detector, path, tmp_path)
    assert result.images == 3
    [(name, message)] = result.failed
    assert name == "1.png" and reason in message
    assert result.ap == pytest.approx(1)
    assert "not counted: 1 of 4 images, first 1.png" in result.summary()


def test_set_whose_images_are_all_unreadable_is_refused(detector: Detector, tmp_path: Path) -> None:
    path = write_set(tmp_path, SCENES)
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"none of the 4 images.*0\.png"):
        evaluate(detector, path, tmp_path / "other")


def test_tar_shards_give_the_same_result(detector: Detector, tmp_path: Path) -> None:
    path = write_set(tmp_path, SCENES)
    shards = tmp_path / "shards"
    shards.mkdir()
    for k in range(4):
        with tarfile.open(shards / f"{k % 2}.tar", "a") as tar:
            tar.add(tmp_path / f"{k}.png", f"./{k}.png")
    assert evaluate(detector, path, shards).to_dict() == (
        evaluate(detector, path, tmp_path).to_dict()
    )


def test_classes_unknown_to_the_model_are_named(detector: Detector, tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "person"}, {"id": 99, "name": "drone"}]
    annotations = [annotation(3, (1, 5, 0)), {**annotation(3, (1, 0, 0)), "category_id": 99}]
    path = write_set(tmp_path, SCENES, categories=categories, annotations=annotations)
    result = evaluate(detector, path, tmp_path)
    assert result.unknown_classes == ("drone",)
    assert "drone" in result.summary()
    assert list(result.per_class) == ["person"]


def renumbered(path: Path, categories: dict[int, tuple[int, str]]) -> Path:
    """A copy of a set with another id and name for each category."""
    value = json.loads(path.read_text())
    for item in value["annotations"]:
        item["category_id"] = categories[item["category_id"]][0]
    value["categories"] = [{"id": number, "name": name} for number, name in categories.values()]
    copy = path.with_name("renumbered.json")
    copy.write_text(json.dumps(value))
    return copy


# A class found in part, one found inexactly, one found whole: no two have the same AP.
UNEQUAL = [
    annotation(0, (1, 1, 1)),
    annotation(0, (1, 3, 3)),
    {"image_id": 0, "category_id": 3, "bbox": [64, 32, 16, 12]},
    annotation(1, (2, 0, 0)),
    annotation(1, (2, 4, 3)),
]


@pytest.mark.parametrize("ids", [(3, 1, 2), (2, 3, 1), (70, 8, 9), (0, 5, -1)])
def test_category_ids_of_a_set_may_be_any(
    detector: Detector, tmp_path: Path, ids: tuple[int, int, int]
) -> None:
    path = write_set(tmp_path, SCENES, annotations=UNEQUAL)
    result = evaluate(detector, path, tmp_path)
    half = 51 / 101
    assert {name: one[:2] for name, one in result.per_class.items()} == {
        "person": pytest.approx((half, half)),
        "bicycle": pytest.approx((1, 1)),
        "car": pytest.approx((0.6, 1)),
    }
    other = renumbered(path, {k: (ids[k - 1], name) for k, name in NAMES.items()})
    again = evaluate(detector, other, tmp_path)
    assert again.to_dict() == result.to_dict()
    assert list(again.per_class) == list(result.per_class)
    np.testing.assert_array_equal(again.precision50, result.precision50)


def test_classes_are_matched_by_name_and_never_by_id(detector: Detector, tmp_path: Path) -> None:
    path = write_set(tmp_path, SCENES)
    other = renumbered(path, {1: (1, "Hünd"), 2: (7, "Bi-Cycle"), 3: (3, "bike")})
    result = evaluate(detector, other, tmp_path)
    assert list(result.per_class) == ["bicycle"]  # given to the first that claims it
    assert result.unknown_classes == ("Hünd", "bike")
    assert result.renamed_classes == ("Bi-Cycle = bicycle",)
    table = result.summary()
    assert "classes unknown to the model: Hünd, bike" in table
    assert "taken as one: Bi-Cycle = bicycle" in table


def test_a_set_that_shares_no_class_with_the_model_is_refused_with_both_lists(
    detector: Detector, tmp_path: Path
) -> None:
    path = write_set(tmp_path, SCENES)
    other = renumbered(path, {1: (1, "Hünd"), 2: (2, "drone"), 3: (3, "tank")})
    with pytest.raises(
        DataError, match=r"none of the 5 classes.*: it has Hünd, drone, tank, the model person, bic"
    ):
        evaluate(detector, other, tmp_path)


def test_a_set_without_annotations_is_refused(detector: Detector, tmp_path: Path) -> None:
    path = write_set(tmp_path, SCENES, annotations=[])
    with pytest.raises(DataError, match=r"set\.json has no annotations"):
        evaluate(detector, path, tmp_path)


@pytest.mark.parametrize("name", ["labels", "data.yaml", "data.YML"])
def test_other_formats_are_refused_with_a_word_on_what_reads_them(
    detector: Detector, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.mkdir() if name == "labels" else path.write_text("names: [person]")
    with pytest.raises(DataError, match=rf"{name} is .*COCO json.*python -m train eval"):
        evaluate(detector, path, tmp_path)


def test_detector_that_finds_nothing_has_ap_zero(detector: Detector, tmp_path: Path) -> None:
    path = write_set(tmp_path, [[]], annotations=[annotation(0, (1, 1, 1))])
    result = evaluate(detector, path, tmp_path)
    assert (result.ap, result.ap50, result.ar) == (0, 0, 0)


def test_progress_and_bad_options(detector: Detector, tmp_path: Path) -> None:
    path = write_set(tmp_path, SCENES)
    seen: list[tuple[int, int]] = []
    evaluate(detector, path, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(OptionError, match="conf"):
        evaluate(detector, path, tmp_path, conf=25)


def test_result_is_json_and_a_table(detector: Detector, tmp_path: Path) -> None:
    result = evaluate(detector, write_set(tmp_path, SCENES), tmp_path)
    value = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert value["ap"] == pytest.approx(1)
    assert value["ap_large"] is None
    counts = {"objects": 1, "images": 1}
    expected = {"ap": 1, "ap50": 1, "ap75": 1, "f1": 1, "conf": value["conf"], **counts}
    assert value["per_class"]["car"] == pytest.approx(expected)
    lines = result.summary().splitlines()
    assert lines[0] == "COCO protocol: score ≥ 0.01, at most 100 boxes an image, nms gaussian"
    assert lines[1].split()[:6] == ["class", "AP", "AP50", "AP75", "objects", "images"]
    assert ["car", "100.0", "100.0", "100.0", "1", "1", "100.0"] in [
        line.split()[:-1] for line in lines
    ]
    assert "large -" in lines[-2]
    assert lines[-1] == "4 images: AP is uncertain"


def test_a_set_of_fifty_images_needs_no_word_of_caution(detector: Detector, tmp_path: Path) -> None:
    path = write_set(tmp_path, [[], SCENES[0], *[[]] * 48])
    assert evaluate(detector, path, tmp_path).notes() == []
    path = write_set(tmp_path, SCENES[:1])
    assert evaluate(detector, path, tmp_path).notes() == ["1 image: AP is uncertain"]


def test_missing_evaluator_names_the_extra(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ImportError, match="pip install faster-coco-eval"):
        evaluate(detector, write_set(tmp_path, SCENES), tmp_path)


class NoisyDetector(Detector):
    """Finds the annotated boxes, moved, missed, doubled and scored at random."""

    def __init__(self, model: Path, truth: dict[str, Any]) -> None:
        super().__init__(model)
        self.truth = truth
        self.calls = 0
        self.found: list[dict[str, Any]] = []

    def __call__(self, image: Any, **options: Any) -> Any:
        rng = np.random.default_rng(self.calls)
        size = super().__call__(image, **options).image_size
        own = [a for a in self.truth["annotations"] if a["image_id"] == self.calls]
        rows = [a for a in own for _ in range(rng.integers(0, 3))]
        boxes = np.array([a["bbox"] for a in rows], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes += rng.normal(0, 3, boxes.shape)
        result = Detections(
            boxes,
            rng.uniform(0.1, 1, len(rows)),
            np.array([self.category_ids.index(a["category_id"]) for a in rows], int),
            self.names,
            self.category_ids,
            size,
        )
        self.found += result.to_coco(self.calls)
        self.calls += 1
        return result


def test_result_agrees_with_pycocotools(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    rng = np.random.default_rng(0)
    scenes: list[list[Object]] = [
        [(int(rng.integers(1, 4)), int(c), int(rng.integers(0, 4))) for c in rng.permutation(6)[:4]]
        for _ in range(25)
    ]
    path = write_set(tmp_path, scenes)
    truth = json.loads(path.read_text())
    for k, item in enumerate(truth["annotations"], start=1):
        x, y, w, h = item["bbox"]
        item["bbox"] = [x, y, w * (1 + k % 4), h * (1 + k % 3)]
        item |= {"id": k, "iscrowd": int(k % 9 == 0), "area": item["bbox"][2] * item["bbox"][3]}
    path.write_text(json.dumps(truth))
    detector = NoisyDetector(tiny_model, truth)
    ours = evaluate(detector, path, tmp_path)
    assert 0.1 < ours.ap < 0.9
    stats = coco_eval(truth, detector.found).stats
    assert [ours.ap, ours.ap50, ours.ap75, ours.ap_small, ours.ap_medium, ours.ar] == (
        pytest.approx([*stats[:5], stats[8]], abs=1e-9)
    )
