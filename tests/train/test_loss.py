from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from train.anchors import decode, encode, make_anchors, to_centre_size
from train.loss import (
    classification_loss,
    detection_loss,
    hardest_negatives,
    localisation_loss,
)
from train.matching import Match, collate
from train.model import Outputs

RESOLUTION = 64
BOX = torch.tensor([[0.1, 0.2, 0.6, 0.8]])


def outputs(classes: int = 3) -> Outputs:
    generator = torch.Generator().manual_seed(1)
    count = len(make_anchors(RESOLUTION))
    sizes = (4, 2, 4, classes + 1)
    return Outputs(*(0.1 * torch.randn(1, count, n, generator=generator) for n in sizes))


def one_box(label: int = 2, ignore: bool = False):
    return collate([(BOX, torch.tensor([label]), torch.tensor([ignore]))])


def test_localisation_loss_by_hand() -> None:
    anchors = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.4, 0.4]]])
    truth = torch.tensor([[[0.4, 0.4, 0.6, 0.6], [0.4, 0.4, 0.6, 0.6]]])
    offsets = torch.tensor([[[0.5, -2.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]]])
    # only the first is positive; its true offsets are 0: 0.5 * 0.5**2 + (2 - 0.5)
    matched = Match(torch.tensor([[1, 0]]), truth)
    assert math.isclose(localisation_loss(offsets, anchors, matched).item(), 1.625, rel_tol=1e-5)


def test_classification_loss_counts_positives_and_three_hardest_negatives_each() -> None:
    logits = torch.zeros(1, 6, 2)
    logits[0, 1:, 1] = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0])
    labels = torch.tensor([[1, 0, 0, 0, 0, 0]])
    wanted = math.log(2) + sum(math.log(1 + math.exp(x)) for x in (4, 3, 2))
    assert math.isclose(classification_loss(logits, labels).item(), wanted, rel_tol=1e-5)


def test_an_ignored_anchor_is_never_a_negative_however_hard() -> None:
    losses = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0, 4.0]])
    chosen = hardest_negatives(losses, torch.tensor([[-1, 0, 1, 0, 0, 0]]))
    assert chosen.tolist() == [[False, True, False, True, True, False]]


def test_an_image_without_objects_still_teaches_three_negatives() -> None:
    chosen = hardest_negatives(torch.rand(2, 50), torch.zeros(2, 50, dtype=torch.int64))
    assert chosen.sum(dim=1).tolist() == [3, 3]


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


def test_an_ignored_box_gives_no_localisation_loss_and_finite_gradients() -> None:
    predictions = Outputs(*(tensor.requires_grad_() for tensor in outputs()))
    losses = detection_loss(predictions, one_box(ignore=True), make_anchors(RESOLUTION))
    assert losses["arm_loc"] == 0 and losses["odm_loc"] == 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(t.grad).all() for t in predictions if t.grad is not None)


def test_the_terms_follow_their_gradient_down() -> None:
    predictions = Outputs(*(tensor.requires_grad_() for tensor in outputs()))
    optimizer = torch.optim.SGD(list(predictions), lr=0.2)
    anchors, totals = make_anchors(RESOLUTION), []
    for _ in range(300):
        loss = sum(detection_loss(predictions, one_box(), anchors).values())
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
