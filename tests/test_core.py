"""The compiled kernels against their definition, other implementations and hostile input."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlite import _core
from tests import reference

METHODS = ("hard", "linear", "gaussian")
few = settings(max_examples=200, deadline=None)


def decode(outputs: Any, anchors: Any, mask: Any = None, **changes: Any) -> Any:
    options: dict[str, Any] = {"objectness": 0.01, "conf": 0.25, "top_k": 400} | changes
    if mask is None:
        mask = np.ones(max(outputs[3].shape[1] - 1, 0), np.uint8)
    return _core.decode_refinedet(
        *outputs, anchors, mask, variance_xy=0.1, variance_wh=0.2, **options
    )


def suppress(boxes: Any, scores: Any, labels: Any = None, **changes: Any) -> Any:
    options: dict[str, Any] = {"method": "hard", "iou": 0.5, "sigma": 0.5, "conf": 0.01}
    labels = np.zeros(len(scores), np.int32) if labels is None else np.asarray(labels, np.int32)
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    options |= {"max_det": 100} | changes
    return _core.suppress(boxes, np.asarray(scores, np.float32), labels, **options)


def random_boxes(rng: np.random.Generator, count: int) -> Any:
    corner = rng.uniform(0, 1, (count, 2))
    size = rng.uniform(0.05, 0.5, (count, 2))
    scores = rng.permutation(np.linspace(0.05, 0.95, count)).astype(np.float32)
    return np.hstack([corner, corner + size]).astype(np.float32), scores


def assert_same_candidates(got: Any, want: Any, conf: float) -> None:
    """Equal within rounding; a probability within rounding of conf may fall on either side."""
    assert got[3] == want[3]
    for one, other in ((got, want), (want, got)):
        for label in np.unique(one[2]):
            mine, theirs = one[2] == label, other[2] == label
            mine &= one[1] > conf * (1 + 1e-5)
            # Centre and size of hostile boxes may cancel: what is left is as exact as they were.
            size = np.maximum(np.abs(one[0][mine]).max(axis=1), 1)[:, None, None]
            apart = np.abs(one[0][mine][:, None] / size - other[0][theirs][None] / size)
            close = (apart < 1e-5).all(axis=2)
            close &= np.isclose(one[1][mine][:, None], other[1][theirs][None], rtol=1e-5, atol=1e-6)
            assert close.any(axis=1).all()


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
@given(
    st.integers(0, 2**32),
    st.integers(0, 40),
    st.integers(2, 40),
    st.sampled_from([0.0, 0.01, 0.4]),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.integers(0, 6),
)
def test_decode_matches_the_definition_on_hostile_values(
    seed: int, count: int, classes: int, objectness: float, conf: float, spoiled: int
) -> None:
    rng = np.random.default_rng(seed)
    outputs, anchors = reference.random_outputs(rng, count, classes)
    for array in (*outputs, anchors):
        reference.spoil(rng, array, spoiled)
    mask = rng.integers(0, 2, classes - 1).astype(np.uint8)
    options: dict[str, Any] = {"objectness": objectness, "conf": conf, "top_k": 10**6}
    want = reference.decode(outputs, anchors, mask, variances=(0.1, 0.2), **options)
    got = decode(outputs, anchors, mask, **options)
    assert np.isfinite(got[0]).all()
    assert np.isfinite(got[1]).all()
    assert_same_candidates(got, want, conf)


@few
@given(st.integers(0, 2**32), st.integers(0, 12))
def test_decode_top_k_takes_the_first_of_each_class(seed: int, top_k: int) -> None:
    outputs, anchors = reference.random_outputs(np.random.default_rng(seed), 60, 5)
    boxes, scores, labels, _ = decode(outputs, anchors, conf=0.1, top_k=10**9)
    assert (np.lexsort((-scores, labels)) == np.arange(len(labels))).all()
    first = np.concatenate([np.flatnonzero(labels == c)[:top_k] for c in range(4)])
    cut = decode(outputs, anchors, conf=0.1, top_k=top_k)
    for whole, part in zip((boxes, scores, labels), cut, strict=False):
        np.testing.assert_array_equal(part, whole[first])


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
    assert decode(outputs, anchors, conf=0.5)[1].tolist() == pytest.approx([0.50025, 0.5])


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1, 2, 3, 4])
def test_decode_counts_and_removes_an_anchor_with_a_non_finite_input(
    which: int, value: float
) -> None:
    outputs, anchors = reference.plain_outputs()
    [*outputs, anchors][which][2, 0] = value
    boxes, scores, _, dropped = decode(outputs, anchors)
    assert dropped == 1
    assert len(scores) == 3
    assert np.isfinite(boxes).all()


def test_decode_counts_a_box_that_overflows() -> None:
    outputs, anchors = reference.plain_outputs()
    outputs[2][1, 3] = 1e4
    boxes, _, _, dropped = decode(outputs, anchors)
    assert (len(boxes), dropped) == (3, 1)


def test_decode_does_not_count_what_the_gate_left_out() -> None:
    outputs, anchors = reference.plain_outputs()
    outputs[1][2], outputs[3][2] = (5, -5), np.nan
    assert decode(outputs, anchors)[3] == 0


def test_decode_of_nothing_but_nan_is_empty() -> None:
    outputs, anchors = reference.plain_outputs(count=9)
    *arrays, dropped = decode([np.full_like(x, np.nan) for x in outputs], anchors)
    assert [x.shape for x in arrays] == [(0, 4), (0,), (0,)]
    assert dropped == 9


def test_decode_takes_a_hundred_thousand_anchors_and_read_only_arrays() -> None:
    outputs, anchors = reference.plain_outputs(count=100_000, classes=3)
    for array in (*outputs, anchors):
        array.flags.writeable = False
    _, scores, labels, _ = decode(outputs, anchors, conf=0.0, top_k=10**12)
    assert np.bincount(labels).tolist() == [100_000, 100_000]
    assert scores[0] == pytest.approx(1 / (1 + 2 * np.exp(-8)), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conf": 25}, "in \\[0, 1\\].*conf=25"),
        ({"objectness": -0.1}, "in \\[0, 1\\]"),
        ({"top_k": -1}, "must not be negative.*top_k=-1"),
        ({"mask": np.ones(7, np.uint8)}, "class_mask must have shape \\(3,\\), got \\(7,\\)"),
        ({"anchors": np.ones((5, 4), np.float32)}, "anchors must have shape \\(4, 4\\)"),
        ({"anchors": np.ones((4, 4))}, "dtype"),
    ],
)
def test_decode_refuses_what_does_not_fit(change: dict[str, Any], words: str) -> None:
    outputs, anchors = reference.plain_outputs()
    options = {"anchors": anchors, "mask": None} | change
    with pytest.raises(ValueError, match=words):
        decode(outputs, **options)


@pytest.mark.parametrize("columns", [0, 1])
def test_decode_needs_a_class_beside_background(columns: int) -> None:
    outputs, anchors = reference.plain_outputs()
    outputs[3] = np.zeros((4, columns), np.float32)
    with pytest.raises(ValueError, match="two classes"):
        decode(outputs, anchors)


@few
@given(
    st.integers(0, 2**32),
    st.integers(0, 60),
    st.sampled_from(METHODS),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.sampled_from([1e-30, 0.1, 0.5]),
    st.sampled_from([0.0, 0.01, 0.4]),
    st.integers(0, 8),
)
def test_suppress_matches_the_definition(
    seed: int, count: int, method: str, iou: float, sigma: float, conf: float, spoiled: int
) -> None:
    """Corners on a coarse grid: many ties, empty, reversed and identical boxes."""
    rng = np.random.default_rng(seed)
    boxes = rng.integers(0, 9, (count, 4)).astype(np.float32) / 8
    scores = rng.integers(0, 21, count).astype(np.float32) / 20
    labels = rng.integers(-1, 3, count).astype(np.int32)
    reference.spoil(rng, boxes, spoiled)
    reference.spoil(rng, scores, spoiled // 3)
    options: dict[str, Any] = {"method": method, "iou": iou, "sigma": sigma, "conf": conf}
    want = reference.suppress(boxes, scores, labels, max_det=40, **options)
    got = suppress(boxes, scores, labels, max_det=40, **options)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)


@few
@given(st.integers(0, 2**32), st.integers(1, 80), st.sampled_from(METHODS))
def test_suppress_keeps_its_invariants(seed: int, count: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, count)
    labels = rng.integers(0, 3, count)
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
    labels = np.arange(300) % 2
    want = reference.onnxruntime_nms(boxes, np.where(labels == [[0], [1]], scores, 0), iou)
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


def test_suppress_orders_negative_zero_as_zero() -> None:
    boxes = [[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]]
    index, _ = suppress(boxes, [-0.0, 0.5, 0.0], conf=0.0)
    assert index.tolist() == [1, 0, 2]


def test_suppress_leaves_out_what_is_not_finite() -> None:
    boxes = [[0, 0, 1, 1], [0, 0, 1, np.inf], [np.nan, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert suppress(boxes, [0.3, 0.9, 0.9, np.nan, np.inf])[0].tolist() == [0]


def test_suppress_finds_overlap_of_huge_and_of_tiny_boxes() -> None:
    for scale in (1e30, 1e-30):
        boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.9]]) * scale
        assert suppress(boxes, [0.9, 0.8])[0].tolist() == [0]


@pytest.mark.parametrize("method", METHODS)
def test_suppress_takes_a_hundred_thousand_candidates(method: str) -> None:
    rng = np.random.default_rng(1)
    corner = np.stack(np.divmod(np.arange(100_000), 313), axis=1)
    apart = np.hstack([corner, corner + 1])
    scores = rng.permutation(np.linspace(0.1, 1, 100_000, dtype=np.float32))
    index, _ = suppress(apart, scores, method=method)
    np.testing.assert_array_equal(index, np.argsort(-scores, kind="stable")[:100])
    same = np.tile(np.float32([0, 0, 1, 1]), (100_000, 1))
    index, _ = suppress(same, scores, method=method, conf=0.6)
    assert index.tolist() == [int(np.argmax(scores))]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "soft"}, "one of hard, linear, gaussian, got 'soft'"),
        ({"iou": 1.5}, "iou=1.5"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"sigma": np.inf}, "sigma must be positive"),
        ({"conf": np.nan}, "conf=nan"),
        ({"max_det": -1}, "max_det=-1"),
        ({"labels": [0, 0]}, "labels must have shape \\(1,\\), got \\(2,\\)"),
    ],
)
def test_suppress_refuses_what_does_not_fit(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        suppress([[0, 0, 1, 1]], [0.5], **change)


@few
@given(st.integers(0, 2**32), st.integers(0, 30), st.integers(0, 10))
def test_scale_boxes_matches_the_definition(seed: int, count: int, spoiled: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(-0.3, 1.3, (count, 4)).astype(np.float32)
    reference.spoil(rng, boxes, spoiled)
    pixels, keep = _core.scale_boxes(boxes, 641, 479)
    want, solid = reference.scale(boxes, 641, 479)
    np.testing.assert_array_equal(keep, solid)
    np.testing.assert_array_equal(pixels[keep], want[solid])
    assert np.isfinite(pixels[keep]).all()


def test_kernels_give_eight_threads_what_they_give_one() -> None:
    problems = [reference.network_outputs(seed, objects=20) for seed in range(8)]

    def solve(problem: Any) -> list[Any]:
        boxes, scores, labels, dropped = decode(*problem, conf=0.02)
        index, final = suppress(boxes, scores, labels, method="gaussian", conf=0.02)
        return [boxes, scores, labels, dropped, index, final, *_core.scale_boxes(boxes, 64, 48)]

    serial = [solve(problem) for problem in problems]
    with ThreadPoolExecutor(8) as pool:
        for round_ in pool.map(lambda _: [solve(p) for p in problems], range(24)):
            for one, other in zip(serial, round_, strict=True):
                for left, right in zip(one, other, strict=True):
                    np.testing.assert_array_equal(left, right)
