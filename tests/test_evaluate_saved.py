"""Files of detections, measured, and the ways in which they can be wrong."""

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
from rdlite.results import Detections
from rdlite.sinks import JsonlSink
from rdlite.storage.journal import jsonl_header
from tests.cocosets import SCENES, coco_eval, random_results, random_set, write_set

pytest.importorskip("faster_coco_eval")
pytest.importorskip("pycocotools")


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def measure(folder: Path, content: dict[str, Any], results: list[dict[str, Any]]) -> EvalResult:
    return evaluate(write(folder / "found.json", results), write(folder / "set.json", content))


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


def test_an_image_that_one_file_lacks_counts_for_neither(
    tmp_path: Path, content: dict[str, Any], truth: Path
) -> None:
    files = {}
    for name, images in (("a", content["images"][1:]), ("b", content["images"][:-2])):
        (tmp_path / name).mkdir()
        part = {**content, "images": images}
        files[name] = jsonl(tmp_path / name, part, random_results(content, 0))
    for result in evaluate_all(files, truth).values():
        assert (result.images, result.complete()) == (17, False)
        assert {name for name, _ in result.failed} == {"1.png", "19.png", "20.png"}
        assert "not counted: 3 of 20 images" in result.summary()


def test_the_best_confidence_is_none_that_the_file_knows_nothing_about(
    tmp_path: Path, content: dict[str, Any], truth: Path
) -> None:
    results = [one for one in random_results(content, 0) if one["score"] >= 0.6]
    result = evaluate(jsonl(tmp_path, content, results, conf=0.6), truth)
    assert result.best_f1()[1] >= 0.6
    assert all(one.conf >= 0.6 for one in result.per_class.values())


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
    assert result.protocol().startswith("perhaps the COCO protocol: score ≥ unknown")
    (tmp_path / "found.json").rename(tmp_path / "FOUND.JSON")
    again = evaluate(tmp_path / "FOUND.JSON", tmp_path / "set.json")
    assert again.ap == result.ap


def test_no_box_at_all_has_ap_zero(tmp_path: Path, content: dict[str, Any]) -> None:
    result = measure(tmp_path, content, [])
    assert (result.ap, result.ar, result.best_f1()[0]) == (0, 0, 0)
    assert "nan" not in result.summary()
    assert "it has no boxes" in result.notes()[-1]


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
