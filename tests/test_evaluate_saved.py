"""Files of detections, measured: against pycocotools, and the ways in which they can be wrong."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdlite.detector import Detector
from rdlite.evaluate import EvalResult, evaluate, evaluate_all
from rdlite.evaluate.dataset import DataError
from rdlite.evaluate.matches import CONFIDENCES
from rdlite.evaluate.result import NUMBERS
from rdlite.results import Detections
from rdlite.sinks import JsonlSink
from rdlite.storage.journal import jsonl_header
from tests.cocosets import SCENES, coco_eval, random_results, random_set, write_set

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


def test_classes_without_a_counterpart_are_left_out_of_the_mean(tmp_path: Path) -> None:
    content = random_set(1)
    results = random_results(content, 1)
    found = write(tmp_path / "found.json", results)
    truth = write(tmp_path / "set.json", content)
    lines = jsonl(tmp_path, content, results, names=["class 3", "class 1"])
    ours = evaluate_all({"all": found, "two": lines}, truth)
    run = coco_eval(content, results, catIds=[10, 30])
    precision = run.eval["precision"][:, :, :, 0, 2]
    for result in ours.values():
        assert result.unknown_classes == ("class 2",)
        assert list(result.per_class) == ["class 1", "class 3"]
        assert result.ap == pytest.approx(precision.mean(), abs=1e-6)


@pytest.mark.parametrize("most", [1, 3])
def test_max_det_counts_boxes_of_a_class_as_pycocotools_does(tmp_path: Path, most: int) -> None:
    content = random_set(2)
    results = random_results(content, 2)
    write(tmp_path / "found.json", results)
    write(tmp_path / "set.json", content)
    ours = evaluate(tmp_path / "found.json", tmp_path / "set.json", max_det=most)
    run = coco_eval(content, results, maxDets=[most])
    assert ours.ap == pytest.approx(run.eval["precision"][..., :3, 0, 0].mean(), abs=1e-6)


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
        (1, 300, 0.2),  # below 0.25: the third cat is missed
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
            if box["score"] < 0.25:
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


def jsonl(
    folder: Path,
    content: dict[str, Any],
    results: list[dict[str, Any]],
    *,
    names: list[str] | None = None,
    rename: Callable[[str], str] = lambda name: f"/photos/{name}",
    **options: Any,
) -> Path:
    """Results as `rdlite detect` writes them; those of classes without a name are left out."""
    ours = {one["id"]: one["name"] for one in content["categories"]}
    names = names or list(ours.values())
    options = {"conf": 0.01, "iou": 0.5, "nms": "hard", "max_det": 100, "classes": None} | options
    header = jsonl_header("ab", names=names, category_ids=range(len(names)), options=options)
    path = folder / "detections.jsonl"
    with JsonlSink(path, header, overwrite=True) as sink:
        for image in content["images"]:
            own = [
                one
                for one in results
                if one["image_id"] == image["id"] and ours[one["category_id"]] in names
            ]
            boxes = np.array([one["bbox"] for one in own], np.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            scores = np.array([one["score"] for one in own], np.float32)
            classes = np.array([names.index(ours[one["category_id"]]) for one in own], np.int64)
            size = (image["width"], image["height"])
            found = Detections(boxes, scores, classes, tuple(names), tuple(range(len(names))), size)
            sink.write(found, image=rename(image["file_name"]))
    return path


@pytest.fixture
def content() -> dict[str, Any]:
    return random_set(0)


@pytest.fixture
def truth(tmp_path: Path, content: dict[str, Any]) -> Path:
    return write(tmp_path / "set.json", content)


def test_a_file_of_detect_has_the_ap_of_its_boxes(
    tmp_path: Path, content: dict[str, Any], truth: Path
) -> None:
    results = random_results(content, 0)
    path = jsonl(tmp_path, content, results)
    ours = evaluate(path, truth)
    assert ours.ap == pytest.approx(coco_eval(content, results).stats[0], abs=2e-3)  # float32
    assert (ours.complete(), ours.warnings()) == (True, [])
    assert ours.options == {"conf": 0.01, "iou": 0.5, "nms": "hard", "max_det": 100}
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert evaluate(packed, truth).ap == ours.ap


def test_a_model_and_the_file_of_what_it_found_give_the_same_numbers(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = write_set(tmp_path, SCENES)
    detector = Detector(tiny_model, conf=0.01)
    header = jsonl_header(
        detector.model_sha256,
        names=detector.names,
        category_ids=detector.category_ids,
        options=detector.options,
    )
    with JsonlSink(tmp_path / "found.jsonl", header) as sink:
        for k in range(len(SCENES)):
            sink.write(detector(tmp_path / f"{k}.png"), image=f"{tmp_path}/{k}.png")
    both = evaluate_all({"model": detector, "file": tmp_path / "found.jsonl"}, path, tmp_path)
    assert both["file"].to_dict() == both["model"].to_dict()


@pytest.mark.parametrize("rename", ["{}", "./{}", "/a/b/{}", "C:\\a\\{}"])
def test_an_image_is_known_by_the_end_of_its_path(
    tmp_path: Path, content: dict[str, Any], truth: Path, rename: str
) -> None:
    path = jsonl(tmp_path, content, random_results(content, 0), rename=rename.format)
    assert evaluate(path, truth).failed == ()


def test_the_longest_end_of_a_path_decides(tmp_path: Path) -> None:
    content = random_set(0, images=2)
    content["images"][0]["file_name"], content["images"][1]["file_name"] = "a.png", "x/a.png"
    truth = write(tmp_path / "set.json", content)
    path = jsonl(tmp_path, content, random_results(content, 0))
    assert evaluate(path, truth).images == 2


def test_images_missing_from_a_file_are_named_and_do_not_count(
    tmp_path: Path, content: dict[str, Any], truth: Path
) -> None:
    part = {**content, "images": content["images"][:-2]}
    result = evaluate(jsonl(tmp_path, part, random_results(content, 0)), truth)
    assert (result.images, result.complete()) == (18, False)
    assert [name for name, _ in result.failed] == ["19.png", "20.png"]
    assert "detections.jsonl says nothing about it" in result.failed[0][1]
    assert "not counted: 2 of 20 images, first 19.png" in result.summary()


def test_images_that_the_set_does_not_have_are_counted(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    part = {**content, "images": content["images"][:15]}
    part["annotations"] = [a for a in content["annotations"] if a["image_id"] <= 15]
    truth = write(tmp_path / "part.json", part)
    result = evaluate(jsonl(tmp_path, content, random_results(content, 0)), truth)
    assert result.complete()
    assert "5 entries of" in result.notes()[-1] and "/photos/16.png" in result.notes()[-1]


def test_a_file_cut_in_the_middle_counts_as_far_as_it_goes(
    tmp_path: Path, content: dict[str, Any], truth: Path
) -> None:
    path = jsonl(tmp_path, content, random_results(content, 0))
    path.write_bytes(path.read_bytes()[:-200])
    result = evaluate(path, truth)
    assert 0 < result.images < 20 and not result.complete()
    assert result.damage and result.damage[0] in result.notes()


def test_a_damaged_file_is_never_called_complete(
    tmp_path: Path, content: dict[str, Any], truth: Path
) -> None:
    path = jsonl(tmp_path, content, random_results(content, 0))
    path.write_bytes(path.read_bytes() + b'{"image": "/pho')
    result = evaluate(path, truth)
    assert (result.images, result.complete()) == (20, False)


def test_only_the_classes_that_were_looked_for_are_measured(
    tmp_path: Path, content: dict[str, Any], truth: Path
) -> None:
    results = [one for one in random_results(content, 0) if one["category_id"] == 20]
    result = evaluate(jsonl(tmp_path, content, results, classes=["class 2"]), truth)
    assert list(result.per_class) == ["class 2"]
    assert result.unknown_classes == ("class 1", "class 3")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"conf": 0.25}, "score below 0.25 are missing"),
        ({"max_det": 20}, "20 boxes an image"),
        ({"conf": 0.3, "max_det": 300}, "below 0.3 are missing .* and 300 boxes"),
    ],
)
def test_results_that_are_not_comparable_say_so(
    tmp_path: Path, content: dict[str, Any], truth: Path, options: dict[str, Any], said: str
) -> None:
    result = evaluate(jsonl(tmp_path, content, random_results(content, 0), **options), truth)
    [warning] = result.warnings()
    assert re.search(said, warning)
    assert result.summary().startswith("NOT the COCO protocol")


def test_coco_results_say_that_their_making_is_unknown(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    result = measure(tmp_path, content, [{**random_results(content, 0)[0], "score": 0.125}])
    assert "does not say how it was made; its lowest score is 0.125" in result.notes()[-1]
    assert "score ≥ unknown" in result.protocol()


def test_no_box_at_all_has_ap_zero(tmp_path: Path, content: dict[str, Any]) -> None:
    result = measure(tmp_path, content, [])
    assert (result.ap, result.ar, result.best_f1()[0]) == (0, 0, 0)
    assert "nan" not in result.summary()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"bbox": [0, 0, float("nan"), 1]}, "entry 3 has bbox .*four finite numbers"),
        ({"bbox": [0, 0, 1]}, "entry 3 has bbox .*four finite numbers"),
        ({"score": float("nan")}, "entry 3 has score nan; give a finite number"),
        ({"image_id": 99}, "entry 3 has image_id 99, which the file does not list"),
        ({"category_id": 99}, "entry 3 has category_id 99"),
    ],
)
def test_faulty_coco_results_are_refused(
    tmp_path: Path, content: dict[str, Any], spoil: dict[str, Any], said: str
) -> None:
    results = random_results(content, 0)
    results[3] |= spoil
    with pytest.raises(DataError, match=rf"found\.json: {said}"):
        measure(tmp_path, content, results)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "is not a list of COCO results"),
        ("[{}]", 'entry 0 lacks "image_id"'),
        ("[1]", 'entry 0 lacks "image_id"'),
        ("nonsense", "is not JSON"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_coco_results_is_refused(
    tmp_path: Path, truth: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "found.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=said):
        evaluate(path, truth)


def test_names_that_fit_nothing_are_refused_with_both(
    tmp_path: Path, content: dict[str, Any], truth: Path
) -> None:
    path = jsonl(tmp_path, content, [], rename=lambda name: f"/photos/x{name}")
    with pytest.raises(DataError, match=r"20 images.*it has /photos/x1\.png.*the set 1\.png"):
        evaluate(path, truth)


def test_an_image_that_is_there_twice_is_refused(
    tmp_path: Path, content: dict[str, Any], truth: Path
) -> None:
    content["images"] += content["images"][:1]
    path = jsonl(tmp_path, content, [])
    with pytest.raises(DataError, match=r"has 1\.png twice, as /photos/1\.png and as /photos/1"):
        evaluate(path, truth)


def test_an_image_of_another_size_does_not_count(
    tmp_path: Path, content: dict[str, Any], truth: Path
) -> None:
    content["images"][0]["width"] = 320
    result = evaluate(jsonl(tmp_path, content, []), truth)
    assert result.images == 19
    assert "320x480" in result.failed[0][1] and "640x480" in result.failed[0][1]


def test_the_file_of_a_video_is_refused(tmp_path: Path, truth: Path) -> None:
    path = tmp_path / "clip.jsonl"
    header = jsonl_header("ab", names=["class 1"], category_ids=[1], source=truth)
    path.write_text(json.dumps(header) + "\n")
    with pytest.raises(DataError, match="about the video"):
        evaluate(path, truth)


def test_image_ids_may_be_text(tmp_path: Path) -> None:
    content = random_set(0)
    results = random_results(content, 0)
    before = measure(tmp_path, content, results)
    for one in (*content["annotations"], *results):
        one["image_id"] = f"image {one['image_id']:02}"
    for one in content["images"]:
        one["id"] = f"image {one['id']:02}"
    assert measure(tmp_path, content, results).to_dict() == before.to_dict()
