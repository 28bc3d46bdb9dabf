"""The compiled kernels under hostile input: what no network should give, and too much of it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlite import _core
from tests import reference
from tests.kernels import METHODS, assert_same_candidates, decode, random_boxes, suppress

few = settings(max_examples=200, deadline=None)


@few
@given(
    st.integers(0, 2**32),
    st.integers(0, 40),
    st.integers(2, 40),
    st.sampled_from([0.0, 0.01, 0.4, 1.0]),
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
        ({"top_k": -(2**40)}, "must not be negative.*top_k=-1099511627776"),
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
    st.integers(0, 120),
    st.sampled_from(METHODS),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.sampled_from([1e-30, 0.1, 0.5]),
    st.sampled_from([0.0, 0.01, 0.4]),
    st.integers(0, 8),
    st.booleans(),
)
def test_suppress_matches_the_definition(
    seed: int,
    count: int,
    method: str,
    iou: float,
    sigma: float,
    conf: float,
    spoiled: int,
    together: bool,
) -> None:
    """Corners on a coarse grid: many ties, empty, reversed and identical boxes."""
    rng = np.random.default_rng(seed)
    boxes = rng.integers(0, 9, (count, 4)).astype(np.float32) / 8
    scores = rng.integers(0, 21, count).astype(np.float32) / 20
    labels = rng.integers(-1, 3, count).astype(np.int32)
    if together:
        labels.sort()
    reference.spoil(rng, boxes, spoiled)
    reference.spoil(rng, scores, spoiled // 3)
    options: dict[str, Any] = {"method": method, "iou": iou, "sigma": sigma, "conf": conf}
    want = reference.suppress(boxes, scores, labels, max_det=40, **options)
    got = suppress(boxes, scores, labels, max_det=40, **options)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)


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
        ({"max_det": -(2**40)}, "max_det=-1099511627776"),
        ({"labels": [0, 0]}, "labels must have shape \\(1,\\), got \\(2,\\)"),
    ],
)
def test_suppress_refuses_what_does_not_fit(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        suppress([[0, 0, 1, 1]], [0.5], **change)


def test_suppress_stays_in_its_memory_while_labels_change() -> None:
    count, stop = 300_000, threading.Event()
    labels, scattered = np.zeros(count, np.int32), (np.arange(count) % 2).astype(np.int32)

    def change() -> None:
        while not stop.is_set():
            labels[:] = scattered  # 300,000 pieces of one label each
            labels[:] = 0  # 18,750

    other = threading.Thread(target=change)
    other.start()
    try:
        boxes = np.tile(np.float32([0, 0, 1, 1]), (count, 1))
        for _ in range(20):
            index, _ = suppress(boxes, np.linspace(0.1, 1, count), labels, max_det=10)
            assert len(index) <= 10
    finally:
        stop.set()
        other.join()


@few
@given(st.integers(0, 2**32), st.integers(0, 30), st.integers(0, 40))
def test_place_matches_the_definition(seed: int, count: int, picks: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(-0.3, 1.3, (count, 4)).astype(np.float32)
    boxes.reshape(-1)[rng.random(boxes.size) < 0.05] = 3e38
    labels = rng.integers(0, 80, count).astype(np.int32)
    picked = rng.integers(0, count, picks if count else 0).astype(np.int32)
    scores = rng.random(len(picked), np.float32)
    pixels, solid = reference.scale(boxes[picked], 641, 479)
    xyxy, confidence, class_id = _core.place(boxes, labels, picked, scores, 641, 479)
    np.testing.assert_array_equal(xyxy, pixels[solid])
    np.testing.assert_array_equal(confidence, scores[solid])
    np.testing.assert_array_equal(class_id, labels[picked][solid])
    assert np.isfinite(xyxy).all()


@pytest.mark.parametrize(
    ("picked", "scores", "words"),
    [
        ([2], [0.5], r"indices below 2, got \[2\]"),
        ([-1], [0.5], r"got \[-1\]"),
        ([0], [], "scores must"),
    ],
)
def test_place_refuses_what_does_not_fit(picked: list[int], scores: Any, words: str) -> None:
    boxes, labels = np.zeros((2, 4), np.float32), np.zeros(2, np.int32)
    with pytest.raises(ValueError, match=words):
        _core.place(boxes, labels, np.int32(picked), np.float32(scores), 64, 48)


@few
@given(st.integers(0, 2**32), st.integers(1, 30), st.sampled_from(METHODS))
def test_suppress_of_a_permuted_input_gives_the_same_boxes(
    seed: int, count: int, method: str
) -> None:
    """Even with ties, which here are between candidates that are the same in everything."""
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, count)
    rows = rng.integers(0, count, 2 * count)
    boxes, scores, labels = boxes[rows], scores[rows], rows % 3
    index, final = suppress(boxes, scores, labels, method=method, iou=0.3)
    shuffled = rng.permutation(len(rows))
    again, same = suppress(
        boxes[shuffled], scores[shuffled], labels[shuffled], method=method, iou=0.3
    )
    np.testing.assert_array_equal(same, final)
    np.testing.assert_array_equal(boxes[shuffled][again], boxes[index])
    assert (final <= scores[index]).all()
    assert len(set(index.tolist())) == len(index)


@pytest.mark.parametrize("iou", [0.0, 1.0])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_suppress_at_the_ends_of_its_range(count: int, method: str, iou: float) -> None:
    boxes = np.tile(np.float32([0, 0, 1, 1]), (count, 1))
    index, final = suppress(boxes, [0.5] * count, method=method, iou=iou, sigma=1e-38)
    alone = method != "gaussian" and iou == 1.0  # no overlap is above 1, so nothing is removed
    assert index.tolist() == list(range(count if alone else min(count, 1)))
    assert (final == np.float32(0.5)).all()


def test_suppress_gives_boxes_without_an_area_no_overlap() -> None:
    boxes = [[0, 0, 1, 1], [0, 0, 0, 1], [1, 1, 0, 0], [0.5, 0.5, 0.5, 0.5]]
    for method in METHODS:
        index, final = suppress(boxes, [0.9, 0.8, 0.7, 0.6], method=method, iou=0.0)
        assert index.tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(final, np.float32([0.9, 0.8, 0.7, 0.6]))
