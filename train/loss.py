"""The losses of RefineDetLite and the anchors they are taken over (arXiv 1911.08855 §4.1, §5.1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from train.advanced import anchor_weights, giou_loss, iou_of_pairs, kl_loss, soft_labels
from train.anchors import decode, encode, to_centre_size, to_corners
from train.distil import Seen, taught_labels
from train.distributed import average, size
from train.matching import IGNORED, Match, Targets, match
from train.model import Outputs

NEGATIVES_PER_POSITIVE = 3
OBJECTNESS = 0.01
"""RefineDet's negative filtering: anchors less probably an object than this leave the ODM loss."""


def detection_loss(
    outputs: Outputs,
    targets: Targets,
    anchors: Tensor,
    *,
    arm: bool = True,
    giou: bool = False,
    iou_guided: bool = False,
    class_weights: Tensor | None = None,
    seen: Seen | None = None,
    distil: float = 0.0,
) -> dict[str, Tensor]:
    """The four terms of Eq. 1, each normalised by the weight of its positive anchors.

    The ARM is matched to the anchors and learns two classes; the ODM is matched to the refined
    anchors, which are the ARM's decoded output without gradient (RefineDet, arXiv 1711.06897 §3).

    The paper states Eq. 2-5 for the classification loss of the ODM only; the ARM, which knows no
    classes and whose boxes are refined again, keeps the cross-entropy.

    Args:
        outputs: Predictions of B images; float32, or bfloat16 as autocast gives them.
        targets: Ground truth of the same images. Every loss of a positive anchor is multiplied by
            the score of its box, and the terms are divided by the sum of those scores.
        anchors: (A, 4) centre-size.
        arm: False leaves the ARM's terms out, for a detector whose ARM is constant.
        giou: GIoU loss of ARM and ODM boxes in place of smooth-L1 (§5.1).
        iou_guided: Soft labels and anchor weights in the ODM (Eq. 2-4).
        class_weights: (K,) weights of the ODM's classes, the background's first (Eq. 5).
        seen: What a teacher sees in the images; not with `iou_guided`.
        distil: Its share of the ODM's labels.

    Returns:
        float32 scalars `arm_loc`, `arm_cls`, `odm_loc`, `odm_cls`; their sum is the loss (all
        weights 1).
    """
    anchors = anchors[None]
    terms = _arm_terms(outputs, targets, anchors, giou=giou) if arm else {}
    refined = decode(outputs.arm_loc.detach().float(), anchors)
    fine = match(to_corners(refined), targets)
    odm = fine._replace(labels=fine.labels.masked_fill(_background(outputs.arm_conf), IGNORED))
    chosen = choose(outputs.odm_conf, odm.labels)
    iou = guiding_iou(outputs.odm_loc, refined, odm, targets, chosen) if iou_guided else None
    soft = None
    if seen is not None:
        boxes, image = to_corners(refined)[chosen], chosen.nonzero()[:, 0]
        soft = taught_labels(odm.labels[chosen], boxes, image, seen, distil)
    return terms | {
        "odm_loc": localisation_loss(outputs.odm_loc, refined, odm, giou=giou),
        "odm_cls": classification_loss(
            outputs.odm_conf, odm, chosen, iou=iou, soft=soft, class_weights=class_weights
        ),
    }


def _arm_terms(
    outputs: Outputs, targets: Targets, anchors: Tensor, *, giou: bool
) -> dict[str, Tensor]:
    matched = match(to_corners(anchors), targets)
    matched = matched._replace(labels=matched.labels.clamp(max=1))
    chosen = choose(outputs.arm_conf, matched.labels)
    return {
        "arm_loc": localisation_loss(outputs.arm_loc, anchors, matched, giou=giou),
        "arm_cls": classification_loss(outputs.arm_conf, matched, chosen),
    }


def _background(arm_conf: Tensor) -> Tensor:
    difference = arm_conf.detach().float().diff(dim=-1)[..., 0]
    return difference < math.log(OBJECTNESS / (1 - OBJECTNESS))


def localisation_loss(
    offsets: Tensor, anchors: Tensor, matched: Match, *, giou: bool = False
) -> Tensor:
    """Smooth-L1 between predicted and encoded true offsets, or GIoU loss of the decoded boxes.

    Args:
        offsets: (B, A, 4) predictions.
        anchors: (1 or B, A, 4) centre-size, what the offsets are relative to.
        matched: Targets of the anchors.
        giou: Which of the two.

    Returns:
        Scalar: weighted mean over the positives, of smooth-L1 summed over the coordinates.
    """
    positive = matched.labels > 0
    offsets, anchors = offsets[positive].float(), anchors.expand_as(offsets)[positive]
    truth, weights = matched.boxes[positive], matched.weights[positive]
    if giou:
        losses = giou_loss(to_corners(decode(offsets, anchors)), truth)
    else:
        wanted = encode(to_centre_size(truth), anchors)
        losses = F.smooth_l1_loss(offsets, wanted, reduction="none").sum(dim=1)
    return (losses * weights).sum() / _normaliser(weights)


def classification_loss(
    logits: Tensor,
    matched: Match,
    chosen: Tensor,
    *,
    iou: Tensor | None = None,
    soft: Tensor | None = None,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy, or the weighted KL divergence from soft labels (Eq. 2), of chosen anchors.

    Args:
        logits: (B, A, K).
        matched: Targets of the anchors; labels 0 background, -1 ignored.
        chosen: bool (B, A), all positives and some negatives: see `choose`.
        iou: IoU of the predicted boxes of the n chosen anchors (n,), to soften labels and weight
            anchors by (Eq. 3, 4); None for neither.
        soft: Labels of the n chosen anchors (n, K) in place of those of `matched`; not with `iou`.
        class_weights: (K,), w of Eq. 2; None is 1.

    Returns:
        Scalar: weighted sum over the chosen anchors, divided by the weight of the positives.
    """
    weights = _with_negatives(matched)[chosen]
    logits, labels = logits[chosen].float(), matched.labels[chosen]
    if soft is not None:
        losses = kl_loss(logits, soft, class_weights)
    elif iou is None:
        losses = F.cross_entropy(logits, labels, weight=class_weights, reduction="none")
    else:
        soft = soft_labels(labels, iou, logits.shape[1])
        losses = anchor_weights(labels, iou) * kl_loss(logits, soft, class_weights)
    return (losses * weights).sum() / _normaliser(weights[labels > 0])


def _with_negatives(matched: Match) -> Tensor:
    """Weights (B, A) in which negatives count like the average positive of their image.

    They are mined in proportion to the positives: beside doubtful boxes at full weight they would
    outweigh them, and the normaliser, a sum of positive weights, would magnify them.
    """
    positive = matched.labels > 0
    total = matched.weights.where(positive, 0.0).sum(dim=1, keepdim=True)
    count = positive.sum(dim=1, keepdim=True)
    average_of_image = torch.where(count > 0, total / count.clamp(min=1), 1.0)
    return torch.where(positive, matched.weights, average_of_image)


def _normaliser(weights: Tensor) -> Tensor:
    """Weight of the positives of the whole batch, which may be spread over several processes.

    At least 1, or a single doubtful box would magnify the negatives. The mean over processes
    belongs to gradients that are averaged over them.
    """
    return average(weights.sum()).clamp(min=1 / size())


@torch.no_grad()
def guiding_iou(
    offsets: Tensor, anchors: Tensor, matched: Match, targets: Targets, chosen: Tensor
) -> Tensor:
    """IoU of predicted boxes with their ground truth, the IOU^ of Eq. 3 and 4.

    Args:
        offsets: (B, A, 4) predictions.
        anchors: (B, A, 4) centre-size, what they are relative to.
        matched: Targets of the anchors.
        targets: Ground truth, for anchors without a box of their own.
        chosen: bool (B, A), which n anchors.

    Returns:
        (n,): of a positive with its own box, of a negative with the object it overlaps most.
    """
    image = chosen.nonzero()[:, 0]
    boxes = to_corners(decode(offsets[chosen].float(), anchors[chosen]))
    own, _ = iou_of_pairs(boxes, matched.boxes[chosen])
    every, _ = iou_of_pairs(boxes[:, None], targets.boxes[image])
    best = every.masked_fill_(~targets.objects[image], 0.0).amax(dim=1)
    return torch.where(matched.labels[chosen] > 0, own, best)


@torch.no_grad()
def choose(logits: Tensor, labels: Tensor) -> Tensor:
    """The anchors that classification learns from: all positives and the hardest negatives (OHEM).

    A negative is hard if it is improbably background: the same rule, and so the same anchors, with
    or without soft labels, whose IoU then need computing for the chosen ones only.

    Args:
        logits: (B, A, K).
        labels: int64 (B, A), 0 background, -1 ignored.

    Returns:
        bool (B, A).
    """
    hardness = -F.log_softmax(logits, dim=-1, dtype=torch.float32)[..., 0]
    return (labels > 0) | hardest_negatives(hardness, labels)


def hardest_negatives(losses: Tensor, labels: Tensor) -> Tensor:
    """The negatives of largest loss, three per positive of the same image (SSD §2.2).

    An image without a positive still gives three: pictures in which there is nothing teach too.
    Of equal losses the first anchors are taken.

    Args:
        losses: (B, A) loss of every anchor, 0 or more.
        labels: (B, A), 0 for negatives.

    Returns:
        bool (B, A).
    """
    negative = labels == 0
    wanted = NEGATIVES_PER_POSITIVE * (labels > 0).sum(dim=1, keepdim=True).clamp(min=1)
    wanted = wanted.clamp(max=labels.shape[1])
    losses = losses.masked_fill(~negative, -1.0)
    least = losses.topk(int(wanted.max()), dim=1).values.gather(1, wanted - 1)
    above = ~(losses <= least)  # so that a NaN is chosen, and found by whoever checks the loss
    equal = losses == least
    room = wanted - above.sum(dim=1, keepdim=True)
    return negative & (above | (equal & (equal.cumsum(dim=1) <= room)))
