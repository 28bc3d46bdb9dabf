"""AP, F1 and confusion of given boxes, against pycocotools and a matching by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdlite import defaults
from rdlite.evaluate import EvalResult, evaluate
from rdlite.evaluate.matches import CONFIDENCES, peak
from rdlite.evaluate.result import NUMBERS
from tests.cocosets import coco_eval, random_results, random_set

pytest.importorskip("faster_coco_eval")
pytest.importorskip("pycocotools")

SEEDS = range(6)


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def measure(folder: Path, content: dict[str, Any], results: list[dict[str, Any]]) -> EvalResult:
    return evaluate(write(folder / "found.json", results), write(folder / "set.json", content))


@pytest.mark.parametrize("seed", SEEDS)
def test_all_numbers_agree_with_pycocotools(tmp_path: Path, seed: int) -> None:
    content = random_set(seed)
    results = random_results(content, seed)
    ours = measure(tmp_path, content, results)
    run = coco_eval(content, results)
    expected = [*run.stats[:6], run.stats[8]]
    assert 0.05 < run.stats[0] < 0.95
    assert [getattr(ours, name) for name in NUMBERS] == pytest.approx(expected, abs=1e-6)
    precision = run.eval["precision"][:, :, :3, 0, 2]  # nobody is of the fourth class
    for k, one in enumerate(ours.per_class.values()):
        expected = [precision[..., k].mean(), precision[0, :, k].mean(), precision[5, :, k].mean()]
        assert one[:3] == pytest.approx(expected, abs=1e-6)
        own = [
            a["image_id"]
            for a in content["annotations"]
            if a["category_id"] == 10 * (k + 1) and not a["iscrowd"]
        ]
        assert (one.objects, one.images) == (len(own), len(set(own)))
    np.testing.assert_allclose(ours.precision50, precision[0].T, atol=1e-6)


@pytest.mark.parametrize("most", [1, 3])
def test_max_det_counts_boxes_of_a_class_as_pycocotools_does(tmp_path: Path, most: int) -> None:
    content = random_set(2)
    results = random_results(content, 2)
    write(tmp_path / "found.json", results)
    write(tmp_path / "set.json", content)
    ours = evaluate(tmp_path / "found.json", tmp_path / "set.json", max_det=most)
    run = coco_eval(content, results, maxDets=[most])
    assert ours.ap == pytest.approx(run.eval["precision"][..., :3, 0, 0].mean(), abs=1e-6)
    assert ours.protocol().startswith("NOT the COCO protocol")
    assert ours.options["max_det"] == most


@pytest.mark.parametrize("conf", [0.0, 0.1, 0.37, 0.9, 1.0])
def test_f1_is_that_of_the_boxes_that_conf_keeps(tmp_path: Path, conf: float) -> None:
    content = random_set(3)
    results = random_results(content, 3)
    curves = measure(tmp_path, content, results).f1()
    kept = [one for one in results if one["score"] >= conf]
    column = int(np.flatnonzero(CONFIDENCES == conf)[0])
    if not kept:
        assert (curves[:, column] == 0).all()
        return
    run = coco_eval(content, kept, iouThrs=np.array([0.5]), areaRng=[[0, 1e10]])
    for k, category in enumerate((10, 20, 30)):
        images = [one for one in run.evalImgs if one and one["category_id"] == category]
        right = sum(((e["dtMatches"] > 0) & ~(e["dtIgnore"] > 0)).sum() for e in images)
        boxes = sum((e["dtIgnore"] == 0).sum() for e in images)
        objects = sum((e["gtIgnore"] == 0).sum() for e in images)
        assert curves[k, column] == pytest.approx(2 * right / (boxes + objects))


def test_the_best_confidence_has_the_best_f1(tmp_path: Path) -> None:
    content = random_set(4)
    result = measure(tmp_path, content, random_results(content, 4))
    curves = result.f1()
    for curve, one in zip(curves, result.per_class.values(), strict=True):
        assert one.f1 == curve.max() == curve[np.flatnonzero(CONFIDENCES == one.conf)[0]]
    best, conf = result.best_f1()
    assert best == curves.mean(axis=0).max()
    assert curves.mean(axis=0)[np.flatnonzero(CONFIDENCES == conf)[0]] == best


@pytest.mark.parametrize(
    ("stretches", "least", "place"),
    [
        ([(0.1, 0.1), (0.5, 0.58)], 0.01, 0.54),
        ([(0.0, 0.4)], 0.0, 0.2),
        ([(0.0, 0.4)], 0.3, 0.35),  # whether it is as good below 0.3 is not known
    ],
)
def test_the_best_confidence_is_far_from_worse_ones(
    stretches: list[tuple[float, float]], least: float, place: float
) -> None:
    curve = np.full(101, 0.5)
    for low, high in stretches:
        curve[(low <= CONFIDENCES) & (high >= CONFIDENCES)] = 0.7
    assert peak(curve, least) == (0.7, place)


def test_confusion_counts_each_object_and_box_once(tmp_path: Path) -> None:
    square = [0.0, 0.0, 100.0, 100.0]
    image = {"id": 1, "file_name": "1.png", "width": 640, "height": 480}
    boxes = {1: [0, 200, 300], 2: [400], 3: [500]}
    annotations = [
        {"id": k, "image_id": 1, "category_id": c, "bbox": [x, *square[1:]], "iscrowd": 0}
        for k, (c, x) in enumerate(((c, x) for c, xs in boxes.items() for x in xs), start=1)
    ]
    annotations[-1]["iscrowd"] = 1
    categories = [{"id": c, "name": name} for c, name in ((1, "cat"), (2, "dog"), (3, "cow"))]
    content = {"images": [image], "annotations": annotations, "categories": categories}
    found = [
        (1, 5, 0.9),  # right
        (2, 0, 0.8),  # on the same cat, which is taken
        (2, 205, 0.7),  # takes a cat for a dog
        (1, 300, 0.2),  # too unsure: the third cat is missed
        (2, 440, 0.6),  # IoU 0.43: nothing is there, and the dog is missed
        (2, 500, 0.5),  # on an object to be ignored
    ]
    results = [
        {"image_id": 1, "category_id": c, "bbox": [x, *square[1:]], "score": score}
        for c, x, score in found
    ]
    counts = measure(tmp_path, content, results).confusion
    #        cat dog cow missed
    assert counts.tolist() == [
        [1, 1, 0, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
        [0, 2, 0, 0],
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_confusion_is_greedy_by_score_without_classes(tmp_path: Path, seed: int) -> None:
    content = random_set(seed)
    results = random_results(content, seed)
    for k, one in enumerate(results):  # without ties there is one answer
        one["score"] = round(one["score"] + 1e-4 * k / len(results), 8)
    counts = measure(tmp_path, content, results).confusion
    expected = np.zeros((4, 4), int)
    for image in content["images"]:
        free = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        own = [b for b in results if b["image_id"] == image["id"] and b["category_id"] <= 30]
        for box in sorted(own, key=lambda one: -one["score"]):
            if box["score"] < defaults.CONF:
                continue
            real = [a for a in free if not a["iscrowd"] and iou(box["bbox"], a["bbox"]) >= 0.5]
            if real:
                best = max(real, key=lambda a: iou(box["bbox"], a["bbox"]))
                free.remove(best)
                expected[best["category_id"] // 10 - 1, box["category_id"] // 10 - 1] += 1
            elif not any(a["iscrowd"] and inside(box["bbox"], a["bbox"]) >= 0.5 for a in free):
                expected[3, box["category_id"] // 10 - 1] += 1
        for missed in (a for a in free if not a["iscrowd"]):
            expected[missed["category_id"] // 10 - 1, 3] += 1
    assert counts.tolist() == expected.tolist()
    assert counts.sum() > 30


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)


def iou(a: list[float], b: list[float]) -> float:
    return overlap(a, b) / (a[2] * a[3] + b[2] * b[3] - overlap(a, b))


def inside(a: list[float], b: list[float]) -> float:
    """The share of the first box that is in the second, which COCO takes for crowds."""
    return overlap(a, b) / (a[2] * a[3])
