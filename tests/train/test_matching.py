from __future__ import annotations

import torch

from train.matching import IGNORED, collate, match

ANCHORS = torch.tensor(
    [[[0.0, 0.0, 0.2, 0.2], [0.1, 0.0, 0.3, 0.2], [0.6, 0.6, 0.8, 0.8], [0.6, 0.6, 1.0, 1.0]]]
)


def targets(*rows: tuple[list[float], int, bool]):
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([row[1] for row in rows], dtype=torch.int64)
    ignore = torch.tensor([row[2] for row in rows], dtype=torch.bool)
    return boxes, labels, ignore, torch.ones(len(rows))


def test_anchors_above_half_iou_are_positive_and_the_rest_background() -> None:
    matched = match(ANCHORS, collate([targets(([0.02, 0.0, 0.2, 0.2], 5, False))]))
    assert matched.labels.tolist() == [[5, 0, 0, 0]]
    assert torch.equal(matched.boxes[0, 0], torch.tensor([0.02, 0.0, 0.2, 0.2]))


def test_every_box_takes_its_best_anchor_however_small_the_overlap() -> None:
    matched = match(ANCHORS, collate([targets(([0.75, 0.75, 0.8, 0.8], 3, False))]))
    assert matched.labels.tolist() == [[0, 0, 3, 0]]


def test_each_anchor_takes_the_box_it_overlaps_most() -> None:
    rows = (([0.0, 0.0, 0.2, 0.2], 1, False), ([0.1, 0.0, 0.3, 0.2], 2, False))
    assert match(ANCHORS, collate([targets(*rows)])).labels.tolist() == [[1, 2, 0, 0]]


def test_anchors_inside_an_ignored_region_are_neither_positive_nor_negative() -> None:
    matched = match(ANCHORS, collate([targets(([0.55, 0.55, 0.85, 0.85], 3, True))]))
    # 39 % of the last anchor lies inside, all of the third
    assert matched.labels.tolist() == [[0, 0, IGNORED, 0]]


def test_a_real_box_inside_an_ignored_region_stays_positive() -> None:
    rows = (([0.5, 0.5, 1.0, 1.0], 3, True), ([0.6, 0.6, 0.8, 0.8], 4, False))
    assert match(ANCHORS, collate([targets(*rows)])).labels.tolist() == [[0, 0, 4, IGNORED]]


def test_an_image_without_boxes_and_padding_beside_a_full_one_match_nothing() -> None:
    full = targets(([0.0, 0.0, 0.2, 0.2], 1, False), ([0.6, 0.6, 0.8, 0.8], 2, False))
    matched = match(ANCHORS, collate([targets(), full]))
    assert matched.labels.tolist() == [[0, 0, 0, 0], [1, 0, 2, 0]]


def test_of_boxes_that_share_a_best_anchor_the_closest_gets_it() -> None:
    rows = (([0.6, 0.6, 0.70, 0.70], 1, False), ([0.6, 0.6, 0.68, 0.68], 2, False))
    for order in (rows, rows[::-1]):
        assert match(ANCHORS, collate([targets(*order)])).labels.tolist() == [[0, 0, 1, 0]]


def test_positives_weigh_what_their_box_does_and_all_others_1() -> None:
    rows = (
        ([0.0, 0.0, 0.2, 0.2], 1, False),
        ([0.6, 0.6, 1.0, 1.0], 2, False),
        ([0.6, 0.6, 0.8, 0.8], 3, True),
    )
    boxes, labels, ignore, _ = targets(*rows)
    scored = (boxes, labels, ignore, torch.tensor([0.25, 0.5, 0.75]))
    matched = match(ANCHORS, collate([scored, targets()]))
    assert matched.labels.tolist() == [[1, 0, IGNORED, 2], [0, 0, 0, 0]]
    assert matched.weights.tolist() == [[0.25, 1.0, 1.0, 0.5], [1.0, 1.0, 1.0, 1.0]]


def test_a_box_that_takes_its_best_anchor_brings_its_weight() -> None:
    boxes, labels, ignore, _ = targets(([0.75, 0.75, 0.8, 0.8], 3, False))
    matched = match(ANCHORS, collate([(boxes, labels, ignore, torch.tensor([0.4]))]))
    assert torch.equal(matched.weights, torch.tensor([[1.0, 1.0, 0.4, 1.0]]))


def test_targets_keep_their_scores_on_another_device() -> None:
    boxes, labels, ignore, _ = targets(([0.0, 0.0, 0.2, 0.2], 1, False))
    moved = collate([(boxes, labels, ignore, torch.tensor([0.5])), targets()]).to("cpu")
    assert moved.scores.tolist() == [[0.5], [1.0]]
