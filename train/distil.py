"""Soft class labels: what a teacher takes each object for, beside what the annotation calls it.

Knowledge distillation (arXiv 1503.02531). A hard label says "dog" and no more; a teacher's scores
say that this dog could also be a sheep, and that the background beside it is a bench that nobody
annotated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from train.matching import areas, intersections

SEEN = 512
"""Most boxes of a teacher in one image. Of 24 photos of streets and rooms, 16 had more than 128
that it believed at all, several on each object."""
LEAST_SCORE = 0.05
"""What a teacher believes less than this says nothing."""
SAME_OBJECT = 0.5
"""IoU from which on a teacher's box and an anchor mean the same object."""


class Seen(NamedTuple):
    """What a teacher sees in a batch: its surest N boxes of each image, several of one object.

    Attributes:
        boxes: float32 (B, N, 4), x1 y1 x2 y2 as shares of the image.
        scores: float32 (B, N, C), probability of each class; all 0 for padding.
    """

    boxes: Tensor
    scores: Tensor


def objects_seen(scores: Sequence[Tensor], bins: Sequence[Tensor], side: int) -> Seen:
    """Read the heads of an anchor-free detector with distances as distributions.

    A distance from a cell's centre to a side of its box is the expectation over `bins`, in strides
    (generalised focal loss, arXiv 2006.04388 Eq. 6), as PicoDet and NanoDet have them.

    Args:
        scores: float32 (B, n, C) probabilities, level by level; n is a square number of cells.
        bins: float32 (B, n, 4 k) logits of the k bins of left, top, right and bottom.
        side: Of the input, in pixels; strides are powers of two.

    Raises:
        ValueError: Scores and bins of a level are not of the same square grid.
    """
    for level, (one, other) in enumerate(zip(scores, bins, strict=True), start=1):
        same = one.dim() == other.dim() == 3 and one.shape[:2] == other.shape[:2]
        if not same or math.isqrt(one.shape[1]) ** 2 != one.shape[1] or other.shape[2] % 4:
            raise ValueError(
                f"scores of shape {tuple(one.shape)} and distances of shape {tuple(other.shape)} "
                f"as level {level}; wanted (B, n, classes) and (B, n, 4 k) of one square grid"
            )
    boxes = torch.cat([_boxes(level, side) for level in bins], dim=1)
    return surest(boxes, torch.cat(list(scores), dim=1))


def surest(boxes: Tensor, scores: Tensor) -> Seen:
    """Keep the boxes that a teacher is surest of.

    Args:
        boxes: float32 (B, n, 4), x1 y1 x2 y2 as shares of the image.
        scores: float32 (B, n, C), probability of each class.
    """
    best, chosen = scores.amax(dim=2).topk(min(SEEN, scores.shape[1]), dim=1)
    kept = scores.gather(1, chosen[..., None].expand(-1, -1, scores.shape[2]))
    return Seen(
        boxes.gather(1, chosen[..., None].expand(-1, -1, 4)),
        kept * (best >= LEAST_SCORE)[..., None],
    )


def _boxes(bins: Tensor, side: int) -> Tensor:
    """Boxes (B, n, 4) of one level, as shares of the image."""
    batch, cells, width = bins.shape
    grid, k = math.isqrt(cells), width // 4
    stride = 2 ** round(math.log2(side / grid)) / side  # the last cell may reach over the edge
    shares = bins.reshape(batch, cells, 4, k).softmax(dim=3)
    distances = (shares @ torch.arange(k, dtype=bins.dtype)) * stride
    axis = (torch.arange(grid) + 0.5) * stride
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    centres = torch.stack([x, y], dim=-1).reshape(-1, 2)
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=2)


@torch.no_grad()
def taught_labels(labels: Tensor, boxes: Tensor, image: Tensor, seen: Seen, share: float) -> Tensor:
    """Labels of anchors to which a teacher adds its opinion.

    The scores s are those of its surest box on the same object as the anchor. For a negative they
    make `share` of the label: 1 - max(s) background, the rest classes. For a positive, whose
    annotation says that there is an object, they make `share` x max(s), all of it classes: the less
    a teacher is sure, the less it has to say. Classes are weighted by s², since eighty small doubts
    together would outweigh the answer.

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
    scores = _opinions(boxes, image, seen)
    best = scores.amax(dim=1, keepdim=True)
    squares = scores.square()
    classes = squares / squares.sum(dim=1, keepdim=True).clamp(min=1e-9)
    positive = (labels > 0)[:, None]
    objectness = torch.where(positive, 1.0, best)
    taught = torch.cat([1 - objectness, objectness * classes], dim=1)
    weight = share * torch.where(positive, best, (best > 0).float())
    return given + weight * (taught - given)


def _opinions(boxes: Tensor, image: Tensor, seen: Seen) -> Tensor:
    """Scores (n, C) of the teacher's surest box on the object of each box, 0 where it has none."""
    scores = torch.zeros(len(boxes), seen.scores.shape[2], device=boxes.device)
    for number in image.unique().tolist():
        rows = (image == number).nonzero()[:, 0]
        theirs, said = seen.boxes[number], seen.scores[number]
        sure = said.amax(dim=1)
        overlap = intersections(boxes[rows][None], theirs[None])[0]
        union = areas(boxes[rows])[:, None] + areas(theirs) - overlap
        same = overlap >= SAME_OBJECT * union.clamp(min=1e-9)
        best, which = (sure * same).max(dim=1)
        scores[rows] = said[which] * (best > 0)[:, None]
    return scores
