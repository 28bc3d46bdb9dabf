"""The losses of RefineDetLite in the paper's basic configuration (arXiv 1911.08855 §4.1, §5.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from train.anchors import decode, encode, to_centre_size, to_corners
from train.matching import IGNORED, Match, Targets, match
from train.model import Outputs

NEGATIVES_PER_POSITIVE = 3
OBJECTNESS = 0.01
"""RefineDet's negative filtering: anchors less probably an object than this leave the ODM loss."""


def detection_loss(outputs: Outputs, targets: Targets, anchors: Tensor) -> dict[str, Tensor]:
    """The four terms of Eq. 1, each normalised by its number of positive anchors.

    The ARM is matched to the anchors and learns two classes; the ODM is matched to the refined
    anchors, which are the ARM's decoded output without gradient (RefineDet, arXiv 1711.06897 §3).

    Args:
        outputs: Predictions of B images.
        targets: Ground truth of the same images.
        anchors: (A, 4) centre-size.

    Returns:
        Scalars `arm_loc`, `arm_cls`, `odm_loc`, `odm_cls`; their sum is the loss (all weights 1).
    """
    outputs = Outputs(*(tensor.float() for tensor in outputs))
    anchors = anchors[None]
    coarse = match(to_corners(anchors), targets)
    arm_labels = coarse.labels.clamp(max=1)

    refined = decode(outputs.arm_loc.detach(), anchors)
    fine = match(to_corners(refined), targets)
    odm_labels = fine.labels.masked_fill(_background(outputs.arm_conf), IGNORED)
    return {
        "arm_loc": localisation_loss(outputs.arm_loc, anchors, coarse),
        "arm_cls": classification_loss(outputs.arm_conf, arm_labels),
        "odm_loc": localisation_loss(outputs.odm_loc, refined, Match(odm_labels, fine.boxes)),
        "odm_cls": classification_loss(outputs.odm_conf, odm_labels),
    }


def _background(arm_conf: Tensor) -> Tensor:
    return arm_conf.detach().softmax(dim=-1)[..., 1] < OBJECTNESS


def localisation_loss(offsets: Tensor, anchors: Tensor, matched: Match) -> Tensor:
    """Smooth-L1 between predicted and encoded true offsets of the positive anchors.

    Args:
        offsets: (B, A, 4) predictions.
        anchors: (1 or B, A, 4) centre-size, what the offsets are relative to.
        matched: Targets of the anchors.

    Returns:
        Scalar: sum over coordinates and positives, divided by the positives.
    """
    positive = matched.labels > 0
    wanted = encode(to_centre_size(matched.boxes[positive]), anchors.expand_as(offsets)[positive])
    return F.smooth_l1_loss(offsets[positive], wanted, reduction="sum") / positive.sum().clamp(
        min=1
    )


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the positives and the hardest negatives (OHEM).

    Args:
        logits: (B, A, n).
        labels: (B, A), 0 background, -1 ignored.

    Returns:
        Scalar: sum over the chosen anchors, divided by the positives.
    """
    losses = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(labels)
    positive = labels > 0
    chosen = positive | hardest_negatives(losses.detach(), labels)
    return losses[chosen].sum() / positive.sum().clamp(min=1)


def hardest_negatives(losses: Tensor, labels: Tensor) -> Tensor:
    """The negatives of largest loss, three per positive of the same image (SSD §2.2).

    An image without a positive still gives three: pictures in which there is nothing teach too.

    Args:
        losses: (B, A) loss of every anchor.
        labels: (B, A).

    Returns:
        bool (B, A).
    """
    negative = labels == 0
    wanted = NEGATIVES_PER_POSITIVE * (labels > 0).sum(dim=1, keepdim=True).clamp(min=1)
    order = losses.masked_fill(~negative, -1.0).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return negative & (rank < wanted)
