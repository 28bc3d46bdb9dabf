"""The kinds of errors: by hand, and against tidecv, the paper's own code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rdlite.evaluate.classnames import share_classes
from rdlite.evaluate.score import Truth, keep_best
from train.errors_tide import KINDS, Errors, find_errors

NAMES = ("cat", "dog", "cow")
Placed = tuple[int, str, tuple[float, ...]]
"""Image, class and xywh."""


def errors(objects: list[Placed], found: list[tuple[float, Placed]], **flags: Any) -> Errors:
    """Errors of boxes given with their scores; `ignored` are the places of objects not to count."""
    ignored = flags.get("ignored", ())
    ids = sorted({one[0] for one in objects} | {one[0] for _, one in found})
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 900, "height": 900} for i in ids],
        "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES, start=1)],
        "annotations": [
            {**_entry(one), "id": k + 1, "iscrowd": int(k in ignored)}
            for k, one in enumerate(objects)
        ],
    }
    truth = Truth(content, content["images"], share_classes(content, NAMES, "a test"))
    numbers = {name: k for k, name in enumerate(truth.names, start=1)}
    boxes: dict[int, list[Any]] = {i: [] for i in ids}
    for score, one in found:
        entry = _entry(one) | {"score": score, "category_id": numbers[one[1]]}
        boxes[one[0]].append(entry)
    return find_errors(truth, keep_best(boxes, truth, 100), ids)


def _entry(one: Placed) -> dict[str, Any]:
    image, name, box = one
    return {"image_id": image, "category_id": NAMES.index(name) + 1, "bbox": list(box)}


def kinds(made: Errors) -> list[str]:
    """Kinds of the boxes, best score first."""
    return [KINDS[kind] for kind in made.boxes.kind]


def gain(made: Errors, name: str) -> float:
    return made.mean_gain(*made.of_kind(KINDS.index(name)))


CAT, DOG = (1, "cat", (100, 100, 40, 40)), (1, "dog", (300, 300, 80, 80))
NEAR = (120, 100, 40, 40)
"""Overlaps the cat by a third."""


def test_each_kind_of_error_is_known() -> None:
    made = errors(
        [CAT, DOG],
        [
            (0.9, CAT),
            (0.8, CAT),
            (0.7, (1, "cat", NEAR)),
            (0.6, (1, "dog", CAT[2])),
            (0.5, (1, "dog", NEAR)),
            (0.4, (1, "dog", (600, 600, 50, 50))),
        ],
    )
    assert kinds(made) == ["right", "duplicate", "place", "class", "both", "background"]
    assert made.objects.missed.tolist() == [False, True]
    assert made.objects.box.tolist() == [0, -1]
    assert not made.boxes.mends.any()  # the cat is found, and no box is on the dog


def test_what_mending_would_gain() -> None:
    made = errors([CAT, DOG], [(0.9, (1, "cat", NEAR)), (0.8, (1, "cat", DOG[2]))])
    assert kinds(made) == ["place", "class"] and made.boxes.mends.all()
    assert np.nanmean(made.ap50) == 0
    # The cat's mended box is before the wrong one; the dog's is the only one of its class.
    assert gain(made, "place") == pytest.approx(0.5)
    assert gain(made, "class") == pytest.approx(0.5)
    assert gain(made, "missed") == gain(made, "background") == 0


def test_only_the_best_box_is_mended_and_the_others_go() -> None:
    wrong = (1, "dog", CAT[2])
    made = errors([CAT, DOG], [(0.9, wrong), (0.8, (1, "cat", NEAR)), (0.7, DOG)])
    assert kinds(made) == ["class", "place", "right"]
    assert made.boxes.mends.tolist() == [True, False, False]
    assert np.nanmean(made.ap50) == pytest.approx(0.25)  # the dog's precision is 1/2
    assert gain(made, "class") == pytest.approx(0.75)
    assert gain(made, "place") == 0


def test_a_better_box_in_a_wrong_place_does_not_take_the_object_from_the_right_one() -> None:
    made = errors([CAT], [(0.9, (1, "cat", NEAR)), (0.8, CAT)])
    assert kinds(made) == ["place", "right"] and made.objects.box.tolist() == [1]
    assert gain(made, "place") == pytest.approx(0.5)


def test_missed_objects_are_not_to_be_found() -> None:
    other = (2, "cat", (10, 10, 30, 30))
    made = errors([CAT, other], [(0.9, CAT)])
    assert made.ap50[0] == pytest.approx(51 / 101)  # recall 0 to 0.5 of 101 points
    assert gain(made, "missed") == pytest.approx(50 / 101)


def test_boxes_on_ignored_regions_are_left_out() -> None:
    made = errors([CAT, DOG], [(0.9, CAT), (0.8, DOG)], ignored=[1])
    assert kinds(made) == ["right"] and len(made.objects.label) == 1
    assert np.isnan(made.ap50).tolist() == [False, True]


def test_nothing_found_is_all_missed() -> None:
    made = errors([CAT, DOG], [])
    assert made.objects.missed.all() and not len(made.boxes.kind)


def random_errors(seed: int) -> tuple[list[Placed], list[tuple[float, Placed]]]:
    """Objects, and boxes that are near them, of wrong classes, doubled, or anywhere."""
    rng = np.random.default_rng(seed)
    objects: list[Placed] = []
    found: list[tuple[float, Placed]] = []
    for image in range(1, 31):
        for _ in range(rng.integers(0, 5)):
            box = (*rng.uniform(0, 500, 2), *rng.uniform(20, 200, 2))
            name = str(rng.choice(NAMES))
            objects.append((image, name, tuple(map(float, box))))
            for _ in range(rng.integers(0, 4)):
                size = np.array([box[2], box[3], 0, 0])
                near = np.array(box) + size * rng.normal(0, 0.25, 4)
                other = name if rng.random() < 0.7 else str(rng.choice(NAMES))
                found.append((float(rng.random()), (image, other, tuple(map(float, near)))))
        for _ in range(rng.integers(0, 3)):
            box = (*rng.uniform(0, 500, 2), *rng.uniform(20, 200, 2))
            place = (image, str(rng.choice(NAMES)), tuple(map(float, box)))
            found.append((float(rng.random()), place))
    return objects, found


@pytest.mark.parametrize("seed", range(3))
def test_tidecv_says_the_same(seed: int) -> None:
    tidecv = pytest.importorskip("tidecv", reason="compares with tidecv; `pip install tidecv`")
    objects, found = random_errors(seed)
    truth, boxes = tidecv.Data("truth"), tidecv.Data("found")
    for image in range(1, 31):
        truth.add_image(image, str(image))
    for image, name, box in objects:
        truth.add_ground_truth(image, name, list(box))
    for score, (image, name, box) in found:
        boxes.add_detection(image, name, score, list(box))
    theirs = tidecv.TIDE().evaluate(truth, boxes, mode=tidecv.TIDE.BOX)
    ours = errors(objects, found)
    assert 100 * np.nanmean(ours.ap50) == pytest.approx(theirs.ap, abs=1e-9)
    counts, costs = theirs.count_errors(), theirs.fix_main_errors()
    short = dict(zip(("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), KINDS[1:], strict=True))
    for error, count in counts.items():
        name = short[error.short_name]
        number, missed = ours.of_kind(KINDS.index(name))
        assert count == number.sum() + missed.sum() > 0, name
        assert 100 * gain(ours, name) == pytest.approx(costs[error], abs=1e-9), name
