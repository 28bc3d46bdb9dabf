"""Which anchor is responsible for which ground-truth box.

Source: SSD (arXiv 1512.02325 §2.2) and RefineDet (arXiv 1711.06897 §3), as the paper uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

POSITIVE_IOU = 0.5
IGNORE_OVERLAP = 0.5
IGNORED = -1
"""Label of an anchor that is neither positive nor negative."""


class Targets(NamedTuple):
    """Ground truth of a batch, padded to the same number of boxes G.

    Attributes:
        boxes: float32 (B, G, 4), x1 y1 x2 y2 as shares of the image.
        labels: int64 (B, G), class index from 1.
        objects: bool (B, G), real boxes to be found.
        ignored: bool (B, G), regions in which nothing is learned. Padding is neither.
        scores: float32 (B, G), how much each box counts in the losses; 1 for padding.
    """

    boxes: Tensor
    labels: Tensor
    objects: Tensor
    ignored: Tensor
    scores: Tensor

    def to(self, device: torch.device | str) -> Targets:
        """The same targets on another device."""
        return Targets(*(tensor.to(device, non_blocking=True) for tensor in self))


class Match(NamedTuple):
    """The target of every anchor.

    Attributes:
        labels: int64 (B, A), class index, 0 for background, -1 for ignored.
        boxes: float32 (B, A, 4), x1 y1 x2 y2 of the matched box; meaningless where no label > 0.
        weights: float32 (B, A), score of the matched box; 1 where no label > 0.
    """

    labels: Tensor
    boxes: Tensor
    weights: Tensor


def collate(samples: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Targets:
    """Pad the ground truth of several images.

    Args:
        samples: Per image boxes (n, 4), labels (n,), ignore flags (n,) and scores (n,).
    """
    count = max(1, *(len(labels) for _, labels, _, _ in samples)) if samples else 1
    targets = Targets(
        torch.zeros(len(samples), count, 4),
        torch.zeros(len(samples), count, dtype=torch.int64),
        torch.zeros(len(samples), count, dtype=torch.bool),
        torch.zeros(len(samples), count, dtype=torch.bool),
        torch.ones(len(samples), count),
    )
    for i, (boxes, labels, ignore, scores) in enumerate(samples):
        targets.boxes[i, : len(labels)] = boxes
        targets.labels[i, : len(labels)] = labels
        targets.objects[i, : len(labels)] = ~ignore
        targets.ignored[i, : len(labels)] = ignore
        targets.scores[i, : len(labels)] = scores
    return targets


def intersections(a: Tensor, b: Tensor) -> Tensor:
    """Intersection areas of boxes a (B, N, 4) and b (B, M, 4), corners: (B, N, M).

    One coordinate at a time, M innermost: three times as fast as on (B, N, M, 2), most of all when
    M is the larger number.
    """
    left, top, right, bottom = a[:, :, None].unbind(dim=-1)
    other_left, other_top, other_right, other_bottom = b.mT[:, :, None].contiguous().unbind(dim=1)
    width = torch.minimum(right, other_right) - torch.maximum(left, other_left)
    height = torch.minimum(bottom, other_bottom) - torch.maximum(top, other_top)
    return width.clamp_(min=0).mul_(height.clamp_(min=0))


def areas(boxes: Tensor) -> Tensor:
    """Areas of (..., 4) corner boxes; a reversed box has none."""
    left, top, right, bottom = boxes.unbind(dim=-1)
    return (right - left).clamp(min=0) * (bottom - top).clamp(min=0)


@torch.no_grad()
def match(anchors: Tensor, targets: Targets) -> Match:
    """Assign ground truth to anchors.

    Every anchor takes the box that it overlaps most, and is positive if that IoU is above 0.5.
    Every box also takes its best anchor, whatever the IoU; where boxes share one, the box that
    overlaps it most gets it. Of the rest, an anchor that lies for
    more than half of its area in an ignored region (COCO's overlap for crowds) is ignored.

    Args:
        anchors: (1 or B, A, 4) corners, shares of the image.
        targets: Ground truth of B images.

    Returns:
        Labels, boxes and weights of all anchors.
    """
    anchors = anchors.expand(len(targets.boxes), -1, -1)
    overlap = intersections(targets.boxes, anchors)
    own_area = areas(anchors)
    union = own_area[:, None] + areas(targets.boxes)[..., None] - overlap
    iou = (overlap / union.clamp_(min=1e-9)).masked_fill_(~targets.objects[..., None], -1.0)

    best_iou, best_box = iou.max(dim=1)
    _force_best_anchor(iou, targets.objects, best_iou, best_box)
    negative = best_iou <= POSITIVE_IOU
    labels = targets.labels.gather(1, best_box).masked_fill_(negative, 0)
    weights = targets.scores.gather(1, best_box).masked_fill_(negative, 1.0)

    covered = overlap.masked_fill_(~targets.ignored[..., None], 0.0).amax(dim=1)
    labels[negative & (covered > IGNORE_OVERLAP * own_area)] = IGNORED
    boxes = targets.boxes.gather(1, best_box[..., None].expand(-1, -1, 4))
    return Match(labels, boxes, weights)


def _force_best_anchor(iou: Tensor, objects: Tensor, best_iou: Tensor, best_box: Tensor) -> None:
    """Give every box its best anchor, in place; of boxes that share one, the closest gets it."""
    anchor_iou, anchor = iou.max(dim=2)
    closest = torch.zeros_like(best_iou).scatter_reduce_(1, anchor, anchor_iou, "amax")
    wins = anchor_iou >= closest.gather(1, anchor)
    image, box = torch.nonzero(objects & (anchor_iou > 0) & wins, as_tuple=True)
    best_iou[image, anchor[image, box]] = 2.0
    best_box[image, anchor[image, box]] = box
