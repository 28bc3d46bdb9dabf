"""Models side by side: which boxes are the same, what is counted, what is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rdlite import Detector, OptionError
from rdlite.compare import Comparison, compare
from rdlite.compare.matching import IOU, Boxes, match
from rdlite.compare.result import AGREED, ALONE, UNKNOWN
from rdlite.image import load
from tests.conftest import NAMES, ModelWriter, constant_model, grid_anchors, tiny_spec
from tests.media import clip

SWAPPED = ("person", "bicycle", "dog", "traffic light", "car")  # calls a red car a dog


@pytest.fixture(scope="module")
def swapped_model(write_model: ModelWriter) -> Path:
    return write_model(spec=tiny_spec(names=SWAPPED))


def boxes(*rows: tuple[float, ...]) -> Boxes:
    """Boxes of x1, y1, x2, y2, score, label."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def test_boxes_of_one_class_that_overlap_by_half_are_the_same_object() -> None:
    whole = boxes((0, 0, 10, 10, 0.9, 1))
    assert match(whole, boxes((0, 0, 10, 5, 0.5, 1))).tolist() == [[0, 0]]
    assert match(whole, boxes((0, 0, 10, 4.9, 0.5, 1))).tolist() == []
    assert match(whole, boxes((0, 0, 10, 10, 0.9, 2))).tolist() == []
    assert match(whole, boxes()).tolist() == match(boxes(), boxes()).tolist() == []


def test_what_both_are_sure_of_goes_first_and_a_box_is_taken_once() -> None:
    first = boxes((0, 0, 10, 8, 0.9, 0), (0, 0, 10, 10, 0.3, 0))
    other = boxes((0, 0, 10, 10, 0.8, 0))
    assert match(first, other).tolist() == [[0, 0]]
    alike = boxes((0, 0, 10, 8, 0.3, 0), (0, 0, 10, 10, 0.3, 0))
    assert match(alike, other).tolist() == [[1, 0]]  # then the one that overlaps more


def test_boxes_without_area_match_nothing() -> None:
    flat = boxes((5, 5, 5, 5, 0.9, 0))
    assert match(flat, flat).tolist() == []


@st.composite
def some_boxes(draw: st.DrawFn) -> Boxes:
    count = draw(st.integers(0, 6))
    corners = draw(arrays.arrays(np.float32, (count, 4), elements=st.integers(0, 8)))
    low, high = corners[:, :2], corners[:, :2] + corners[:, 2:]
    # distinct scores, as a network gives them
    score = (np.arange(count, dtype=np.float32) + draw(st.integers(1, 9))) / 100
    label = draw(arrays.arrays(np.int64, count, elements=st.integers(0, 1)))
    return Boxes(np.concatenate([low, high], axis=1), score, label)


@given(some_boxes(), some_boxes())
def test_matching_is_one_to_one_of_one_class_and_maximal(first: Boxes, other: Boxes) -> None:
    pairs = match(first, other)
    assert len(set(pairs[:, 0].tolist())) == len(set(pairs[:, 1].tolist())) == len(pairs)
    for row, column in pairs:
        assert first.label[row] == other.label[column]
        assert overlap(first.xyxy[row], other.xyxy[column]) >= IOU
    for row in set(range(len(first.label))) - set(pairs[:, 0].tolist()):
        for column in set(range(len(other.label))) - set(pairs[:, 1].tolist()):
            same = first.label[row] == other.label[column]
            assert not (same and overlap(first.xyxy[row], other.xyxy[column]) >= IOU)


@given(some_boxes())
def test_a_model_agrees_with_itself(one: Boxes) -> None:
    solid = (one.xyxy[:, 2:] > one.xyxy[:, :2]).all(axis=1)
    assert len(match(one, one)) == solid.sum()


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = float(width * height)
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return common / (sum(areas) - common)


@pytest.fixture
def result(tiny_model: Path, swapped_model: Path, photos: Path) -> Comparison:
    detectors = {"a": Detector(tiny_model), "b": Detector(swapped_model)}
    return compare(detectors, [photos / "a.png", photos / "bad.jpg", photos / "more" / "a.png"])


def test_what_both_have_and_what_one_has_alone(result: Comparison, photos: Path) -> None:
    (agreement,) = result.agreements
    assert dict(agreement.per_class) == {"person": (2, 0, 0), "car": (0, 2, 0), "dog": (0, 0, 2)}
    assert agreement.totals == (2, 2, 2)
    assert agreement.scores.sum() == np.trace(agreement.scores) == 2
    assert [dict(model.objects) for model in result.models] == [
        {"person": 2, "car": 2},
        {"person": 2, "dog": 2},
    ]
    assert all(model.ms > 0 for model in result.models)
    picture = result.pictures[0]
    assert [states.tolist() for states in picture.states] == [[AGREED, ALONE]] * 2
    alone = sum(float(found.confidence[1]) for found in picture.found)
    assert picture.difference == pytest.approx(alone)
    assert [one.name for one in result.pictures] == [
        str(photos / "a.png"),
        str(photos / "more" / "a.png"),
    ]


def test_what_cannot_be_read_is_named_and_counts_for_nothing(
    result: Comparison, photos: Path
) -> None:
    ((name, reason),) = result.failed
    assert name == str(photos / "bad.jpg") and "bad.jpg" in reason
    assert result.images == 2


def test_the_summary_and_the_json_have_the_same_numbers(result: Comparison) -> None:
    content = json.loads(json.dumps(result.to_dict()))
    assert content["images"] == 2 and len(content["failed"]) == 1
    assert content["agreements"][0]["both"] == content["agreements"][0]["only_other"] == 2
    assert content["pictures"][0]["objects"] == [2, 2]
    assert "a and b: 2 boxes by both, 2 by a alone, 2 by b alone" in result.summary()


def test_boxes_that_are_not_finite_are_counted(
    tiny_model: Path, write_model: ModelWriter, photos: Path
) -> None:
    broken = np.zeros((1, len(grid_anchors()), 4))
    broken[0, 0] = np.nan
    scores = np.zeros((1, len(grid_anchors()), len(NAMES) + 1))
    scores[..., 1] = 9
    faces = {"arm_conf": np.full((1, len(grid_anchors()), 2), 5.0), "odm_conf": scores}
    other = write_model(constant_model(odm_loc=broken, **faces))
    result = compare({"a": Detector(tiny_model), "b": Detector(other)}, [photos / "a.png"])
    assert [one.dropped_nonfinite for one in result.models] == [0, 1]
    assert result.notes() == ["left out because they were not finite: 1 box of b"]


def test_a_notebook_shows_the_numbers(result: Comparison) -> None:
    shown = result._repr_html_()
    assert "2 pictures compared, 1 failed" in shown
    assert "<td>a</td><td>b</td><td>2</td><td>2</td><td>2</td>" in shown


def test_the_pictures_that_differ_most_are_kept(
    tiny_model: Path, swapped_model: Path, squares: np.ndarray, tmp_path: Path
) -> None:
    gray = np.full_like(squares, 90)
    blue = gray.copy()
    blue[16:32, 16:32] = squares[16:32, 16:32]
    for name, image in (("1 gray", gray), ("2 both", squares), ("3 blue", blue), ("4", squares)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    detectors = {"a": Detector(tiny_model), "b": Detector(swapped_model)}
    paths = sorted(tmp_path.glob("*.png"))
    kept = compare(detectors, paths, limit=3)
    assert [Path(one.name).stem for one in kept.pictures] == ["2 both", "4", "1 gray"]
    assert kept.images == 4 and kept.models[0].total == 5
    assert compare(detectors, paths, limit=1).pictures[0].name == str(paths[1])


def test_classes_are_matched_by_name_and_the_others_are_not_compared(
    tiny_model: Path, write_model: ModelWriter, photos: Path
) -> None:
    names = ("human", "bicycle", "boat", "traffic light", "dog")
    other = Detector(write_model(spec=tiny_spec(names=names)))
    result = compare({"a": Detector(tiny_model), "b": other}, [photos / "a.png"])
    (agreement,) = result.agreements
    assert dict(agreement.per_class) == {"person": (1, 0, 0)}
    assert agreement.not_compared == (1, 1)
    assert agreement.renamed == {"human": "person"}
    assert agreement.notes == (
        "a alone knows, so not compared with b: car",
        "b alone knows, so not compared with a: boat",
        "spelled differently, taken as one: human = person",
    )
    assert [one.tolist() for one in result.pictures[0].states] == [[AGREED, UNKNOWN]] * 2
    assert result.pictures[0].difference < 0.01


def test_a_box_of_the_first_of_three_models_is_alone_if_one_of_the_others_lacks_it(
    tiny_model: Path, swapped_model: Path, photos: Path
) -> None:
    models = {"a": tiny_model, "b": tiny_model, "c": swapped_model}
    detectors = {name: Detector(path) for name, path in models.items()}
    result = compare(detectors, [photos / "a.png"])
    assert [one.totals for one in result.agreements] == [(2, 0, 0), (1, 1, 1)]
    states = [one.tolist() for one in result.pictures[0].states]
    assert states == [[AGREED, ALONE], [AGREED, AGREED], [AGREED, ALONE]]


def test_frames_of_a_video_are_spread_evenly(
    tiny_model: Path, swapped_model: Path, squares: np.ndarray, tmp_path: Path
) -> None:
    path = clip(tmp_path / "clip.mp4", [squares] * 40, size=(96, 64))
    detectors = {"a": Detector(tiny_model), "b": Detector(swapped_model)}
    result = compare(detectors, videos=[path, tmp_path / "gone.mp4"], frames=4)
    times = sorted(float(one.name.split()[-2]) for one in result.pictures)
    assert times == pytest.approx([0.2, 0.6, 1.0, 1.4], abs=0.05)
    assert [name for name, _ in result.failed] == [str(tmp_path / "gone.mp4")]
    few = compare(detectors, videos=[path], frames=100)
    assert few.images == 40  # each frame once


def test_nothing_to_compare_is_refused(tiny_model: Path, write_model: ModelWriter) -> None:
    with pytest.raises(OptionError, match="two models or more, got 1"):
        compare({"a": Detector(tiny_model)}, [])
    other = Detector(write_model(spec=tiny_spec(names=("v", "w", "x", "y", "z"))))
    with pytest.raises(OptionError, match=r"a and b have no class in common"):
        compare({"a": Detector(tiny_model), "b": other}, [])
    for options in ({"limit": 0}, {"frames": 0}):
        with pytest.raises(OptionError, match=f"{next(iter(options))} must be"):
            compare({"a": Detector(tiny_model), "b": other}, [], **options)


def test_the_picture_has_a_row_for_each_image_and_a_column_for_each_model(
    result: Comparison, tmp_path: Path
) -> None:
    tall, low = result.picture().image, result.picture(rows=1).image
    assert tall.shape[1] == low.shape[1] > 2 * 500
    assert tall.shape[0] - low.shape[0] > 300
    cell = low[60 : 60 + 300]
    left, right = cell[:, : cell.shape[1] // 2], cell[:, cell.shape[1] // 2 :]
    assert (left != right).any()  # a car there, a dog here
    result.save(tmp_path / "grid.png")
    assert np.array_equal(load(tmp_path / "grid.png"), tall)


def test_in_the_picture_the_boxes_of_one_alone_are_dashed(result: Comparison) -> None:
    row = result.pictures[0].states
    agreed = replace(result.pictures[0], states=tuple(np.full_like(one, AGREED) for one in row))
    whole = replace(result, pictures=(agreed,)).picture().image
    dashed = replace(result, pictures=(replace(agreed, states=row),)).picture().image
    changed = (whole[:-50] != dashed[:-50]).any(axis=2)  # without the captions
    assert changed.any(axis=0)[: whole.shape[1] // 2].any()
    assert changed.any(axis=0)[whole.shape[1] // 2 :].any()


def test_a_comparison_of_nothing_has_numbers_and_no_picture(
    tiny_model: Path, swapped_model: Path
) -> None:
    empty = compare({"a": Detector(tiny_model), "b": Detector(swapped_model)}, [])
    assert empty.images == 0 and "0 pictures compared" in empty._repr_html_()
    assert [model.ms for model in empty.models] == [0, 0]
    assert "0 boxes by both" in empty.summary()
    with pytest.raises(OptionError, match="no picture was compared"):
        empty.picture()


def test_memory_is_that_of_the_pictures_kept(
    tiny_model: Path, swapped_model: Path, photos: Path
) -> None:
    detectors = {"a": Detector(tiny_model), "b": Detector(swapped_model)}
    many = compare(detectors, [photos / "a.png"] * 200, limit=2)
    assert len(many.pictures) == 2 and many.images == 200
    assert NAMES[2] in many.models[0].objects and many.models[0].objects["car"] == 200


def test_an_existing_file_is_replaced_only_when_asked(result: Comparison, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("of the user")
    with pytest.raises(OptionError, match="exists already"):
        result.save(path)
    assert path.read_text() == "of the user"
    result.save(path, overwrite=True)
    assert path.read_text().startswith("<!doctype html>")
