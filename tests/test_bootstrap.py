"""The difference of two detectors: exact on any choice of images, and honest about chance."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdlite.errors import OptionError
from rdlite.evaluate import EvalResult, bootstrap, compare_results, evaluate_all
from rdlite.evaluate.matches import average_precision
from tests.cocosets import coco_eval, random_results, random_set

pytest.importorskip("faster_coco_eval")
pytest.importorskip("pycocotools")


def measure(
    folder: Path, content: dict[str, Any], **found: list[dict[str, Any]]
) -> dict[str, EvalResult]:
    (folder / "set.json").write_text(json.dumps(content))
    for name, results in found.items():
        (folder / f"{name}.json").write_text(json.dumps(results))
    return evaluate_all({name: folder / f"{name}.json" for name in found}, folder / "set.json")


def repeated(
    content: dict[str, Any], results: list[dict[str, Any]], weights: np.ndarray
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The set and the results with image i `weights[i]` times."""
    copies: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "results": []}
    for image, times in zip(content["images"], weights.tolist(), strict=True):
        for _ in range(times):
            number = len(copies["images"]) + 1
            copies["images"].append({**image, "id": number})
            for name, entries in (("annotations", content["annotations"]), ("results", results)):
                copies[name] += [
                    {**copy.deepcopy(one), "image_id": number}
                    for one in entries
                    if one["image_id"] == image["id"]
                ]
    for k, one in enumerate(copies["annotations"], start=1):
        one["id"] = k
    found = copies.pop("results")
    return {**content, **copies}, found


@pytest.mark.parametrize("seed", range(4))
def test_ap_of_a_draw_is_what_pycocotools_says_of_the_drawn_images(
    tmp_path: Path, seed: int
) -> None:
    content = random_set(seed)
    results = random_results(content, seed)
    for k, one in enumerate(results):  # equal scores would leave the order open
        one["score"] = round(one["score"] + 1e-4 * k / len(results), 8)
    result = measure(tmp_path, content, one=results, other=results)["one"]
    rng = np.random.default_rng(seed)
    draws = np.stack(
        [np.ones(20, np.int64), rng.multinomial(20, [1 / 20] * 20), 3 * (np.arange(20) < 2)]
    )
    for k, matches in enumerate(result.matches):
        values = average_precision(matches, draws)
        for weights, ours in zip(draws, values, strict=True):
            run = coco_eval(*repeated(content, results, weights))
            expected = run.eval["precision"][:, :, k, 0, 2].mean(axis=1)
            np.testing.assert_allclose(np.nan_to_num(ours, nan=-1.0), expected, rtol=0, atol=1e-9)


def test_the_point_estimate_is_the_difference_of_the_evaluator(tmp_path: Path) -> None:
    content = random_set(5)
    found = {"a": random_results(content, 1), "b": random_results(content, 2, noise=0.3)}
    results = measure(tmp_path, content, **found)
    comparison = compare_results(results["a"], results["b"], resamples=20)
    a, b = results["a"], results["b"]
    assert comparison.ap.value == pytest.approx(b.ap - a.ap, abs=1e-9)
    assert comparison.ap50.value == pytest.approx(b.ap50 - a.ap50, abs=1e-9)
    for name, one in comparison.per_class.items():
        assert one.value == pytest.approx(b.per_class[name].ap - a.per_class[name].ap, abs=1e-9)
        assert one.low <= one.high


def test_a_detector_does_not_differ_from_itself(tmp_path: Path) -> None:
    content = random_set(6)
    results = random_results(content, 6)
    both = measure(tmp_path, content, a=results, b=results)
    comparison = compare_results(both["a"], both["b"], resamples=50)
    assert comparison.ap == comparison.ap50 == (0, 0, 0)
    assert "may be chance" in comparison.verdict()


def test_a_detector_that_is_much_better_is_so_by_more_than_chance(tmp_path: Path) -> None:
    content = random_set(7, images=40)
    found = {"bad": random_results(content, 1, 0.3), "good": random_results(content, 2, 0.02)}
    results = measure(tmp_path, content, **found)
    better = compare_results(results["bad"], results["good"], resamples=200)
    worse = compare_results(results["good"], results["bad"], resamples=200)
    assert 0 < better.ap.low < better.ap.value < better.ap.high
    assert better.verdict() == "AP is higher by more than chance"
    assert worse.verdict() == "AP is lower by more than chance"
    assert worse.ap == pytest.approx([-better.ap.value, -better.ap.high, -better.ap.low])


@pytest.mark.parametrize(("images", "known"), [(1, False), (5, False), (6, True)])
def test_few_images_are_too_few_to_tell(tmp_path: Path, images: int, known: bool) -> None:
    """Draws from one image are all alike, which must not look like certainty."""
    content = random_set(9, images=images + 10)
    content["annotations"] = [
        {"id": k, "image_id": k, "category_id": 10, "bbox": [0, 0, 50, 50]}
        for k in range(1, images + 1)
    ]
    good = [{**one, "score": 0.5} for one in content["annotations"]]
    results = measure(tmp_path, content, bad=[], good=good)
    comparison = compare_results(results["bad"], results["good"], resamples=50)
    for one in (comparison.ap, comparison.ap50, comparison.per_class["class 1"]):
        assert one.value == pytest.approx(1)
        assert one.sure == known
        assert str(one).endswith("[?]") != known
    assert ("too few to tell" in comparison.verdict()) != known
    assert (comparison.to_dict()["ap"]["low"] is None) != known


def test_intervals_of_equally_good_detectors_hold_zero_about_as_often_as_they_say(
    tmp_path: Path,
) -> None:
    hits = 0
    for seed in range(12):
        content = random_set(seed, images=30, classes=3)
        found = {name: random_results(content, 100 * k + seed) for k, name in enumerate("ab")}
        results = measure(tmp_path, content, **found)
        hits += not compare_results(results["a"], results["b"], resamples=60).ap.sure
    assert hits >= 9  # of 12, where 19 of 20 are expected


def test_neither_batches_nor_time_change_the_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random_set(8)
    found = {"a": random_results(content, 1), "b": random_results(content, 2)}
    results = measure(tmp_path, content, **found)
    seen: list[tuple[int, int]] = []
    whole = compare_results(results["a"], results["b"], resamples=30)
    monkeypatch.setattr(bootstrap, "_CELLS", 300)
    parts = compare_results(
        results["a"], results["b"], resamples=30, progress=lambda *done: seen.append(done)
    )
    assert parts.to_dict() == whole.to_dict()
    assert len(seen) > 3 and seen[-1] == (30, 30)


def test_results_of_other_images_are_not_compared(tmp_path: Path) -> None:
    sets = [random_set(1), random_set(2)]
    first, second = (measure(tmp_path, content, a=[], b=[])["a"] for content in sets)
    alone = measure(tmp_path, sets[0], a=[])["a"]
    for results in ((first, second), (first, alone), (alone, alone)):
        with pytest.raises(OptionError, match="evaluate_all"):
            compare_results(*results)
    both = measure(tmp_path, random_set(1), a=[], b=[])
    with pytest.raises(OptionError, match="resamples"):
        compare_results(both["a"], both["b"], resamples=0)


def test_a_class_to_be_ignored_has_no_difference(tmp_path: Path) -> None:
    content = random_set(1)
    for one in content["annotations"]:
        one["iscrowd"] |= one["category_id"] == 20
    found = {"a": random_results(content, 1), "b": random_results(content, 2)}
    results = measure(tmp_path, content, **found)
    comparison = compare_results(results["a"], results["b"], resamples=20)
    assert str(comparison.per_class["class 2"]) == "-"
    assert comparison.to_dict()["per_class"]["class 2"]["value"] is None
    assert not np.isnan(comparison.ap.value)
