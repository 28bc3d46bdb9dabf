from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from train.anchors import decode, encode, make_anchors, to_centre_size, to_corners
from train.distil import Seen
from train.loss import (
    choose,
    classification_loss,
    detection_loss,
    guiding_iou,
    hardest_negatives,
    localisation_loss,
)
from train.matching import Match, collate
from train.model import Outputs

RESOLUTION = 64
BOX = torch.tensor([[0.1, 0.2, 0.6, 0.8]])
WEIGHTS = torch.tensor([1.0, 1.0, 4.0, 10.0])
COMBINATIONS = [
    {"giou": giou, "iou_guided": guided, "class_weights": weights}
    for giou, guided, weights in itertools.product((False, True), (False, True), (None, WEIGHTS))
]
ADVANCED = COMBINATIONS[-1]


def outputs(classes: int = 3) -> Outputs:
    generator = torch.Generator().manual_seed(1)
    count = len(make_anchors(RESOLUTION))
    sizes = (4, 2, 4, classes + 1)
    return Outputs(*(0.1 * torch.randn(1, count, n, generator=generator) for n in sizes))


def one_box(label: int = 2, ignore: bool = False, score: float = 1.0):
    sample = (BOX, torch.tensor([label]), torch.tensor([ignore]), torch.tensor([score]))
    return collate([sample])


def matched(labels: list[int], boxes: torch.Tensor, weights: list[float] | None = None) -> Match:
    weights = weights or [1.0] * len(labels)
    return Match(torch.tensor([labels]), boxes[None], torch.tensor([weights]))


def test_localisation_loss_by_hand() -> None:
    anchors = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.4, 0.4]]])
    truth = torch.tensor([[[0.4, 0.4, 0.6, 0.6], [0.4, 0.4, 0.6, 0.6]]])
    offsets = torch.tensor([[[0.5, -2.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]]])
    # only the first is positive; its true offsets are 0: 0.5 * 0.5**2 + (2 - 0.5)
    loss = localisation_loss(offsets, anchors, matched([1, 0], truth[0]))
    assert math.isclose(loss.item(), 1.625, rel_tol=1e-5)


def test_giou_localisation_loss_by_hand() -> None:
    anchors = torch.tensor([[[0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 0.4, 0.4]]])
    truth = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.1, 0.1, 0.3, 0.3]])
    # the first moves to 0.2..0.4 x 0.1..0.3: overlap 0.02, union and what is around it 0.06
    offsets = torch.tensor([[[5.0, 0.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]]])
    loss = localisation_loss(offsets, anchors, matched([1, 0], truth), giou=True)
    assert math.isclose(loss.item(), 2 / 3, rel_tol=1e-5)


def test_localisation_loss_is_a_mean_weighted_by_the_scores() -> None:
    anchors = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]]).expand(1, 3, 4)
    truth = torch.tensor([[0.4, 0.4, 0.6, 0.6]]).expand(3, 4)
    offsets = torch.tensor([[[1.5, 0, 0, 0], [2.5, 0, 0, 0], [4.5, 0, 0, 0]]])  # losses 1, 2, 4
    for weights, wanted in (
        ([1.0, 1.0, 1.0], 7 / 3),
        ([1.0, 0.5, 0.25], (1 + 1 + 1) / 1.75),
        ([0.25, 0.25, 0.25], 7 / 4),  # never divided by less than 1
    ):
        loss = localisation_loss(offsets, anchors, matched([1, 1, 1], truth, weights))
        assert math.isclose(loss.item(), wanted, rel_tol=1e-5)


def test_classification_loss_counts_positives_and_three_hardest_negatives_each() -> None:
    logits = torch.zeros(1, 6, 2)
    logits[0, 1:, 1] = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0])
    target = matched([1, 0, 0, 0, 0, 0], torch.zeros(6, 4))
    wanted = math.log(2) + sum(math.log(1 + math.exp(x)) for x in (4, 3, 2))
    loss = classification_loss(logits, target, choose(logits, target.labels))
    assert math.isclose(loss.item(), wanted, rel_tol=1e-5)


def test_classification_loss_weighs_positives_by_score_and_class() -> None:
    target = matched([2, 1, 0, -1], torch.zeros(4, 4), [0.5, 1.0, 1.0, 1.0])
    chosen = torch.tensor([[True, True, True, False]])
    loss = classification_loss(torch.zeros(1, 4, 4), target, chosen, class_weights=WEIGHTS)
    # (0.5 * 4 + 1 * 1 + 0.75) ln 4 over the weight of the positives, whose mean the negative has
    assert math.isclose(loss.item(), 3.75 * math.log(4) / 1.5, rel_tol=1e-5)


def test_negatives_weigh_no_more_than_the_doubtful_positives_they_were_mined_for() -> None:
    target = matched([2, 0, 0, 0], torch.zeros(4, 4))
    doubtful = target._replace(weights=torch.tensor([[0.1, 1.0, 1.0, 1.0]]))
    many = [
        t._replace(
            **{
                k: v.repeat(20, 1) if v.dim() == 2 else v.repeat(20, 1, 1)
                for k, v in t._asdict().items()
            }
        )
        for t in (target, doubtful)
    ]
    chosen = torch.ones(20, 4, dtype=torch.bool)
    sure, unsure = (classification_loss(torch.zeros(20, 4, 4), t, chosen) for t in many)
    torch.testing.assert_close(sure, unsure)
    alone = torch.zeros(1, 4, dtype=torch.int64)  # without a positive they count in full
    nothing = target._replace(labels=alone)
    loss = classification_loss(torch.zeros(1, 4, 4), nothing, chosen[:1])
    assert math.isclose(loss.item(), 4 * math.log(4), rel_tol=1e-5)


def test_iou_guided_classification_loss_by_hand() -> None:
    target = matched([1, 0], torch.zeros(2, 4), [0.5, 1.0])
    loss = classification_loss(
        torch.zeros(1, 2, 2),
        target,
        torch.tensor([[True, True]]),
        iou=torch.tensor([0.5, 0.2]),
        class_weights=torch.tensor([1.0, 2.0]),
    )
    # y = 1 - 0.25 * 0.5 = 0.875, 1 - 0.25 * 0.2 = 0.95; eta = 1 / 0.55, 1
    positive = 2 * 0.875 * math.log(1.75) + 0.125 * math.log(0.25)
    positive -= 1.75 * math.log(1.875 / 2) + 0.125 * math.log(1.875)  # the floor
    negative = 0.95 * math.log(1.9) + 2 * 0.05 * math.log(0.1)
    negative -= 0.95 * math.log(1.05) + 0.1 * math.log(1.05 / 2)
    assert math.isclose(loss.item(), positive / 0.55 * 0.5 + negative * 0.5, rel_tol=1e-4)


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_perfectly_placed_boxes_give_the_plain_classification_loss(
    class_weights: torch.Tensor | None,
) -> None:
    logits = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
    target, chosen = matched([3, 1, 0, 0], torch.zeros(4, 4)), torch.ones(1, 4, dtype=torch.bool)
    iou = torch.tensor([1.0, 1.0, 0.0, 0.0])
    plain = classification_loss(logits, target, chosen, class_weights=class_weights)
    guided = classification_loss(logits, target, chosen, iou=iou, class_weights=class_weights)
    torch.testing.assert_close(guided, plain)


def test_guiding_iou_is_with_the_own_box_or_for_negatives_the_best_object() -> None:
    objects = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.2, 0.0, 0.6, 0.4], [0.5, 0.5, 0.9, 0.9]])
    labels, ignore = torch.tensor([1, 2, 3]), torch.tensor([False, False, True])
    nothing = (objects[:0], labels[:0], ignore[:0], torch.ones(0))
    truth = collate([(objects, labels, ignore, torch.ones(3)), nothing])
    # all boxes are 0.2..0.6 x 0..0.4, but one in the ignored region
    anchors = torch.tensor([0.4, 0.2, 0.4, 0.4]).repeat(2, 4, 1)
    anchors[0, 2] = torch.tensor([0.7, 0.7, 0.4, 0.4])
    target = Match(
        torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0]]), objects[0].expand(2, 4, 4), torch.ones(2, 4)
    )
    chosen = torch.tensor([[True, True, True, False], [True, False, False, False]])
    iou = guiding_iou(torch.zeros(2, 4, 4), anchors, target, truth, chosen)
    torch.testing.assert_close(iou, torch.tensor([1 / 3, 1.0, 0.0, 0.0]))


def test_an_ignored_anchor_is_never_a_negative_however_hard() -> None:
    losses = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0, 4.0]])
    chosen = hardest_negatives(losses, torch.tensor([[-1, 0, 1, 0, 0, 0]]))
    assert chosen.tolist() == [[False, True, False, True, True, False]]


def test_an_image_without_objects_still_teaches_three_negatives() -> None:
    chosen = hardest_negatives(torch.rand(2, 50), torch.zeros(2, 50, dtype=torch.int64))
    assert chosen.sum(dim=1).tolist() == [3, 3]


def test_of_equally_hard_negatives_the_first_are_chosen() -> None:
    losses = torch.tensor([[1.0, 2.0, 1.0, 1.0, 9.0]])
    chosen = hardest_negatives(losses, torch.tensor([[0, 0, 0, 0, 1]]))
    assert chosen.tolist() == [[True, True, True, False, False]]


def test_fewer_negatives_than_wanted_are_all_chosen() -> None:
    chosen = hardest_negatives(torch.zeros(1, 5), torch.tensor([[1, 2, -1, 0, 0]]))
    assert chosen.tolist() == [[False, False, False, True, True]]


@pytest.mark.parametrize("options", COMBINATIONS)
def test_a_broken_prediction_is_not_hidden(options: dict) -> None:
    broken = outputs()
    broken.odm_conf[0, 7, 1] = math.nan
    broken.odm_loc[:] = math.nan
    losses = detection_loss(broken, one_box(), make_anchors(RESOLUTION), **options)
    assert math.isnan(losses["odm_cls"]) and math.isnan(losses["odm_loc"])


def test_perfect_predictions_have_almost_no_loss() -> None:
    anchors = make_anchors(RESOLUTION)[None]
    truth = to_centre_size(BOX)[None].expand(1, anchors.shape[1], 4)
    perfect = outputs()._replace(arm_loc=encode(truth, anchors), odm_loc=torch.zeros_like(anchors))
    # Every refined anchor now is the box, so every anchor of the ODM is positive.
    perfect.odm_conf[..., 2] = 30.0
    losses = detection_loss(perfect, one_box(), anchors[0])
    assert losses["arm_loc"] < 1e-6 and losses["odm_loc"] < 1e-6 and losses["odm_cls"] < 1e-6
    assert losses["arm_cls"] > 0.1


def test_the_odm_is_matched_to_refined_anchors_whose_gradient_is_cut() -> None:
    predictions = Outputs(*(tensor.requires_grad_() for tensor in outputs()))
    losses = detection_loss(predictions, one_box(), make_anchors(RESOLUTION))
    (losses["odm_loc"] + losses["odm_cls"]).backward()
    assert predictions.arm_loc.grad is None and predictions.arm_conf.grad is None
    assert predictions.odm_loc.grad.abs().sum() > 0


def test_anchors_that_the_arm_calls_background_take_no_part_in_the_odm() -> None:
    sure = outputs()
    sure.arm_conf[..., 0] = 10.0
    losses = detection_loss(sure, one_box(), make_anchors(RESOLUTION))
    assert losses["odm_cls"] == 0 and losses["odm_loc"] == 0
    assert losses["arm_loc"] > 0


@pytest.mark.parametrize("options", COMBINATIONS)
def test_images_without_objects_give_no_localisation_loss_and_finite_gradients(
    options: dict,
) -> None:
    empty = (BOX[:0], torch.zeros(0, dtype=torch.int64), torch.zeros(0).bool(), torch.zeros(0))
    everything = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    all_ignored = (everything, torch.tensor([1]), torch.tensor([True]), torch.ones(1))
    for targets in (one_box(ignore=True), collate([empty]), collate([all_ignored])):
        predictions = Outputs(*(tensor.requires_grad_() for tensor in outputs()))
        losses = detection_loss(predictions, targets, make_anchors(RESOLUTION), **options)
        assert losses["arm_loc"] == 0 and losses["odm_loc"] == 0
        sum(losses.values()).backward()
        assert all(torch.isfinite(t.grad).all() for t in predictions)


@pytest.mark.parametrize("options", COMBINATIONS)
def test_bfloat16_predictions_give_float32_terms_and_finite_gradients(options: dict) -> None:
    rough = Outputs(*(tensor.bfloat16().requires_grad_() for tensor in outputs()))
    same = Outputs(*(tensor.detach().float() for tensor in rough))
    anchors = make_anchors(RESOLUTION)
    losses = detection_loss(rough, one_box(), anchors, **options)
    assert list(losses) == ["arm_loc", "arm_cls", "odm_loc", "odm_cls"]
    assert all(loss.dtype == torch.float32 and loss.ndim == 0 for loss in losses.values())
    torch.testing.assert_close(losses, detection_loss(same, one_box(), anchors, **options))
    sum(losses.values()).backward()
    assert all(torch.isfinite(t.grad).all() and t.grad.abs().sum() > 0 for t in rough)


def test_each_switch_changes_only_the_terms_that_the_paper_says() -> None:
    def terms(**options) -> dict[str, torch.Tensor]:
        return detection_loss(outputs(), one_box(), make_anchors(RESOLUTION), **options)

    basic = terms()
    for options, changed in (
        ({"giou": True}, {"arm_loc", "odm_loc"}),
        ({"iou_guided": True}, {"odm_cls"}),
        ({"class_weights": WEIGHTS}, {"odm_cls"}),
        ({"class_weights": torch.ones(4)}, set()),
        (ADVANCED, {"arm_loc", "odm_loc", "odm_cls"}),
    ):
        other = terms(**options)
        assert {name for name in basic if not torch.equal(basic[name], other[name])} == changed


def test_the_iou_that_guides_labels_passes_no_gradient_to_the_boxes() -> None:
    predictions = Outputs(*(tensor.requires_grad_() for tensor in outputs()))
    losses = detection_loss(predictions, one_box(), make_anchors(RESOLUTION), iou_guided=True)
    losses["odm_cls"].backward()
    assert predictions.odm_loc.grad is None and predictions.odm_conf.grad.abs().sum() > 0


def test_every_configuration_learns_from_the_same_anchors() -> None:
    rows = []
    for options in COMBINATIONS:
        predictions = Outputs(*(tensor.requires_grad_() for tensor in outputs()))
        losses = detection_loss(predictions, one_box(), make_anchors(RESOLUTION), **options)
        losses["odm_cls"].backward()
        rows.append(predictions.odm_conf.grad.abs().sum(dim=-1) > 0)
    assert rows[0].any() and all(torch.equal(rows[0], other) for other in rows[1:])


def test_a_score_scales_the_share_of_its_box() -> None:
    generator, anchors = torch.Generator().manual_seed(2), make_anchors(RESOLUTION)
    boxes = torch.tensor([[0.1, 0.2, 0.6, 0.8], [0.5, 0.1, 0.9, 0.5]])
    predictions = outputs()
    predictions.odm_conf[:] = torch.randn(predictions.odm_conf.shape, generator=generator)

    def loss(scores: list[float]) -> torch.Tensor:
        sample = (boxes, torch.tensor([1, 2]), torch.tensor([False, False]), torch.tensor(scores))
        return detection_loss(predictions, collate([sample]), anchors, **ADVANCED)["arm_loc"]

    both, first, second = loss([1.0, 1.0]), loss([1.0, 0.0]), loss([0.0, 1.0])
    assert min(first, second) < both < max(first, second)
    between = loss([1.0, 0.5])
    assert min(first, both) < between < max(first, both)


@pytest.mark.parametrize("options", [COMBINATIONS[0], ADVANCED])
def test_the_terms_follow_their_gradient_down(options: dict) -> None:
    predictions = Outputs(*(tensor.requires_grad_() for tensor in outputs()))
    optimizer = torch.optim.SGD(list(predictions), lr=0.2)
    anchors, totals = make_anchors(RESOLUTION), []
    for _ in range(300):
        loss = sum(detection_loss(predictions, one_box(), anchors, **options).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert totals[-1] < 0.3 * totals[0]
    refined = decode(predictions.arm_loc[0], anchors)
    box = decode(predictions.odm_loc[0], refined)[
        F.softmax(predictions.odm_conf[0], -1)[:, 2] > 0.5
    ]
    assert len(box) and (box - to_centre_size(BOX)).abs().max() < 0.05


def test_a_teacher_s_opinion_changes_the_odm_s_classification_alone() -> None:
    predicted, anchors = outputs(), make_anchors(RESOLUTION)
    targets = one_box()
    boxes = to_corners(decode(predicted.arm_loc, anchors))  # it has a box on every anchor
    seen = Seen(boxes, torch.tensor([0.1, 0.9, 0.3]).expand(1, len(anchors), 3))
    plain = detection_loss(predicted, targets, anchors)
    taught = detection_loss(predicted, targets, anchors, seen=seen, distil=0.5)
    unheard = detection_loss(predicted, targets, anchors, seen=seen, distil=0.0)
    assert {name for name in plain if plain[name] != taught[name]} == {"odm_cls"}
    assert unheard["odm_cls"].item() == pytest.approx(plain["odm_cls"].item())
