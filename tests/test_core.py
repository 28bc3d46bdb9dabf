"""The compiled kernels against their definition and other implementations."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlite import _core
from tests import reference
from tests.kernels import METHODS, assert_same_candidates, decode, random_boxes, suppress

few = settings(max_examples=200, deadline=None)


@pytest.mark.parametrize("conf", [0.25, 0.01])
@pytest.mark.parametrize("seed", [1, 2])
def test_decode_matches_the_definition_on_a_busy_image(seed: int, conf: float) -> None:
    outputs, anchors = reference.network_outputs(seed)
    mask = np.random.default_rng(seed).integers(0, 4, 80).astype(np.uint8)
    options: dict[str, Any] = {"objectness": 0.01, "conf": conf, "top_k": 400}
    want = reference.decode(outputs, anchors, mask, variances=(0.1, 0.2), **options)
    got = decode(outputs, anchors, mask, **options)
    assert len(got[1]) > 20
    assert_same_candidates(got, want, conf)


@few
@given(st.integers(0, 2**32), st.integers(0, 12), st.booleans())
def test_decode_top_k_keeps_the_best_of_each_class(seed: int, top_k: int, ties: bool) -> None:
    outputs, anchors = reference.random_outputs(np.random.default_rng(seed), 60, 5)
    if ties:
        outputs[3] = np.round(outputs[3] / 2)
    boxes, scores, labels, _ = decode(outputs, anchors, conf=0.1, top_k=10**9)
    assert (np.diff(labels) >= 0).all()
    order = np.lexsort((-scores, labels))
    best = np.concatenate([order[labels[order] == c][:top_k] for c in range(4)])
    cut = decode(outputs, anchors, conf=0.1, top_k=top_k)
    for whole, part in zip((boxes, scores, labels), cut, strict=False):
        np.testing.assert_array_equal(part, whole[np.sort(best)])


def test_decode_breaks_ties_by_anchor() -> None:
    outputs, anchors = reference.plain_outputs(count=50)
    boxes, scores, _, _ = decode(outputs, anchors, top_k=3)
    assert (scores == scores[0]).all()
    np.testing.assert_allclose(boxes[:, 0], anchors[:3, 0] - 0.1, rtol=1e-6)


def test_decode_refines_each_anchor_twice() -> None:
    outputs, anchors = reference.plain_outputs(count=1)
    anchors[0] = 0.5, 0.5, 0.2, 0.4
    outputs[0][0] = 1, 2, 5 * np.log(2), 0  # centre (0.52, 0.58), twice as wide
    outputs[2][0] = 1, -1, 0, 5 * np.log(0.5)  # centre (0.56, 0.54), half as high
    boxes, _, _, _ = decode(outputs, anchors)
    np.testing.assert_allclose(boxes, [[0.36, 0.44, 0.76, 0.64]], rtol=1e-5)


def test_decode_softmax_is_accurate_over_the_whole_range() -> None:
    outputs, anchors = reference.plain_outputs(count=1, classes=170)
    outputs[3][0] = -np.arange(170) / 2  # exact in float32, down to a probability of e^-84.5
    want = np.exp(outputs[3][0].astype(np.float64))
    _, scores, _, _ = decode(outputs, anchors, conf=0.0)
    np.testing.assert_allclose(scores, want[1:] / want.sum(), rtol=5e-7)


def test_decode_keeps_scores_from_conf_on() -> None:
    outputs, anchors = reference.plain_outputs(count=3, classes=2)
    outputs[3][:] = [[0, -1e-3], [0, 0], [0, 1e-3]]
    assert decode(outputs, anchors, conf=0.5)[1].tolist() == pytest.approx([0.5, 0.50025])


def test_decode_gate_is_on_the_object_probability() -> None:
    outputs, anchors = reference.plain_outputs(count=3)
    limit = np.log(0.01 / 0.99)
    outputs[1][:] = [[7, 7 + limit - 1e-3], [7, 7 + limit + 1e-3], [0, 60]]
    boxes, _, _, dropped = decode(outputs, anchors)
    np.testing.assert_allclose(boxes[:, 0], anchors[1:, 0] - 0.1, rtol=1e-6)
    assert dropped == 0


def test_decode_class_mask_chooses_without_changing_scores() -> None:
    outputs, anchors = reference.network_outputs(3)
    mask = np.zeros(80, np.uint8)
    everything = decode(outputs, anchors, conf=0.05)
    wanted = np.unique(everything[2])[::2]
    mask[wanted] = 255
    chosen = decode(outputs, anchors, mask, conf=0.05)
    of_wanted = np.isin(everything[2], wanted)
    assert 0 < of_wanted.sum() < len(of_wanted)
    np.testing.assert_array_equal(chosen[1], everything[1][of_wanted])


@few
@given(st.integers(0, 2**32), st.integers(1, 150), st.sampled_from(METHODS), st.booleans())
def test_suppress_keeps_its_invariants(seed: int, count: int, method: str, together: bool) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, count)
    labels = rng.integers(0, 3, count)
    if together:
        labels.sort()
    index, final = suppress(boxes, scores, labels, method=method)
    assert len(set(index.tolist())) == len(index)
    assert (final <= scores[index]).all()
    assert (final >= np.float32(0.01)).all()
    assert (np.diff(final) <= 0).all()
    assert index[0] == np.argmax(scores)
    shuffled = rng.permutation(count)
    again, same = suppress(boxes[shuffled], scores[shuffled], labels[shuffled], method=method)
    np.testing.assert_array_equal(shuffled[again], index)
    np.testing.assert_array_equal(same, final)


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.7])
def test_suppress_hard_agrees_with_onnxruntime(iou: float) -> None:
    boxes, scores = random_boxes(np.random.default_rng(5), 300)
    labels = np.arange(300) // 150
    want = reference.onnxruntime_nms(boxes, np.where(labels == [[0], [1]], scores, 0), iou)()
    index, _ = suppress(boxes, scores, labels, iou=iou, max_det=300)
    assert set(zip(labels[index].tolist(), index.tolist(), strict=True)) == want


PAIR = [[0, 0, 2, 1], [1, 0, 3, 1], [7, 7, 8, 8]]  # IoU of the first two: 1/3


@pytest.mark.parametrize(
    ("options", "second"),
    [
        ({"method": "hard", "iou": 0.3}, None),
        ({"method": "hard", "iou": 0.4}, 0.8),
        ({"method": "linear", "iou": 0.3}, 0.8 * 2 / 3),
        ({"method": "linear", "iou": 0.4}, 0.8),
        ({"method": "gaussian", "sigma": 0.5}, 0.8 * np.exp(-1 / 9 / 0.5)),
        ({"method": "gaussian", "sigma": 1e-30}, None),
        ({"method": "gaussian", "sigma": 0.5, "conf": 0.7}, None),
    ],
)
def test_suppress_by_hand(options: dict[str, Any], second: float | None) -> None:
    index, final = suppress(PAIR, [0.9, 0.8, 0.1], **options)
    scores = dict(zip(index.tolist(), final.tolist(), strict=True))
    assert scores[0] == np.float32(0.9)
    assert scores.get(1) == (None if second is None else pytest.approx(second))


def test_suppress_leaves_other_classes_and_disjoint_boxes_alone() -> None:
    boxes, scores = [[0, 0, 1, 1]] * 3 + [[1, 0, 2, 1]], [0.9, 0.8, 0.7, 0.6]
    for method in METHODS:
        index, final = suppress(boxes, scores, [4, 5, -7, 4], method=method)
        assert index.tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(final, np.float32(scores))


@pytest.mark.parametrize(("iou", "kept"), [(1.0, [0, 1]), (0.999, [0])])
def test_suppress_hard_at_the_largest_overlap(iou: float, kept: list[int]) -> None:
    assert suppress([[0, 0, 1, 1]] * 2, [0.9, 0.8], iou=iou)[0].tolist() == kept


def test_suppress_max_det_takes_the_best_final_scores_over_all_classes() -> None:
    boxes = [[0, 0, 1, 1], [0, 0, 1, 1], [5, 5, 6, 6], [0, 0, 1, 1]]
    options: dict[str, Any] = {"method": "gaussian", "sigma": 0.5}
    index, final = suppress(boxes, [0.9, 0.8, 0.2, 0.5], [0, 0, 0, 1], max_det=3, **options)
    assert index.tolist() == [0, 3, 2]  # 0.8 has fallen to 0.8 exp(-2) = 0.11
    assert suppress(boxes, [0.9, 0.8, 0.2, 0.5], max_det=0, **options)[0].tolist() == []
    np.testing.assert_array_equal(final, np.float32([0.9, 0.5, 0.2]))


def test_kernels_give_eight_threads_what_they_give_one() -> None:
    problems = [reference.network_outputs(seed, objects=20) for seed in range(8)]

    def solve(problem: Any) -> list[Any]:
        boxes, scores, labels, dropped = decode(*problem, conf=0.02)
        index, final = suppress(boxes, scores, labels, method="gaussian", conf=0.02)
        placed = _core.place(boxes, labels, index, final, 64, 48)
        return [boxes, scores, labels, dropped, index, final, *placed]

    serial = [solve(problem) for problem in problems]
    with ThreadPoolExecutor(8) as pool:
        for round_ in pool.map(lambda _: [solve(p) for p in problems], range(24)):
            for one, other in zip(serial, round_, strict=True):
                for left, right in zip(one, other, strict=True):
                    np.testing.assert_array_equal(left, right)
