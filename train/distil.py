"""Soft class labels: what a teacher takes each object for, beside what the annotation calls it.

Knowledge distillation (arXiv 1503.02531). A hard label says "dog" and no more; a teacher's scores
say that this dog could also be a sheep, and that the background beside it is a bench that nobody
annotated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from train.matching import areas, intersections

SEEN = 128
"""Most boxes of a teacher in one image."""
LEAST_SCORE = 0.05
"""What a teacher believes less than this says nothing."""
SAME_OBJECT = 0.5
"""IoU from which on a teacher's box and an anchor mean the same object."""


class Seen(NamedTuple):
    """The objects that a teacher sees in a batch, the surest N of each image.

    Attributes:
        boxes: float32 (B, N, 4), x1 y1 x2 y2 as shares of the image.
        scores: float32 (B, N, C), probability of each class; all 0 for padding.
    """

    boxes: Tensor
    scores: Tensor


def objects_seen(scores: Sequence[Tensor], bins: Sequence[Tensor]) -> Seen:
    """Read the heads of an anchor-free detector with distances as distributions.

    A distance from a cell's centre to a side of its box is the expectation over `bins`, in strides
    (generalised focal loss, arXiv 2006.04388 Eq. 6), as PicoDet and NanoDet have them.

    Args:
        scores: float32 (B, n, C) probabilities, level by level; n is a square number of cells.
        bins: float32 (B, n, 4 k) logits of the k bins of left, top, right and bottom.
    """
    boxes = torch.cat([_boxes(level) for level in bins], dim=1)
    every = torch.cat(list(scores), dim=1)
    best, chosen = every.amax(dim=2).topk(min(SEEN, every.shape[1]), dim=1)
    kept = every.gather(1, chosen[..., None].expand(-1, -1, every.shape[2]))
    return Seen(
        boxes.gather(1, chosen[..., None].expand(-1, -1, 4)),
        kept * (best >= LEAST_SCORE)[..., None],
    )


def _boxes(bins: Tensor) -> Tensor:
    """Boxes (B, n, 4) of one level, as shares of the image."""
    batch, cells, width = bins.shape
    grid, k = round(cells**0.5), width // 4
    shares = bins.reshape(batch, cells, 4, k).softmax(dim=3)
    distances = (shares @ torch.arange(k, dtype=bins.dtype)) / grid
    axis = (torch.arange(grid) + 0.5) / grid
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    centres = torch.stack([x, y], dim=-1).reshape(-1, 2)
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=2)


@torch.no_grad()
def taught_labels(labels: Tensor, boxes: Tensor, image: Tensor, seen: Seen, share: float) -> Tensor:
    """Labels of anchors to which a teacher adds its opinion.

    Where it has a box on the same object as the anchor, its scores s make `share` of the label. The
    classes get s² / sum(s²) of what is not background, since eighty small doubts together would
    outweigh the answer; background gets nothing for a positive, whose annotation says that there is
    an object, and 1 - max(s) for a negative.

    Args:
        labels: int64 (n,), 0 for background.
        boxes: float32 (n, 4), x1 y1 x2 y2 as shares of the image.
        image: int64 (n,), the image of each.
        seen: What the teacher sees in these images.
        share: From 0, the annotation alone, to 1.

    Returns:
        float32 (n, C + 1), rows sum to 1, background first.
    """
    given = F.one_hot(labels, seen.scores.shape[2] + 1).float()
    scores, agrees = _opinions(boxes, image, seen)
    best = scores.amax(dim=1)
    squares = scores.square()
    classes = squares / squares.sum(dim=1, keepdim=True).clamp(min=1e-9)
    objectness = torch.where(labels > 0, 1.0, best)[:, None]
    taught = torch.cat([1 - objectness, objectness * classes], dim=1)
    return given + share * agrees[:, None] * (taught - given)


def _opinions(boxes: Tensor, image: Tensor, seen: Seen) -> tuple[Tensor, Tensor]:
    """Scores (n, C) of the teacher's box nearest to each box, and whether it is the same object."""
    scores = torch.zeros(len(boxes), seen.scores.shape[2], device=boxes.device)
    agrees = torch.zeros(len(boxes), device=boxes.device)
    for number in image.unique().tolist():
        rows = (image == number).nonzero()[:, 0]
        theirs, said = seen.boxes[number], seen.scores[number]
        overlap = intersections(boxes[rows][None], theirs[None])[0]
        union = areas(boxes[rows])[:, None] + areas(theirs) - overlap
        iou = overlap / union.clamp(min=1e-9) * (said.amax(dim=1) > 0)
        best, nearest = iou.max(dim=1)
        scores[rows], agrees[rows] = said[nearest], (best >= SAME_OBJECT).float()
    return scores, agrees
